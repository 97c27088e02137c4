// Field configuration as Grafana applies it: its own applyFieldOverrides, with the registry of properties that Grafana's
// core fills and the library leaves empty. The processors are the library's.
import {
  FieldConfigOptionsRegistry,
  FieldType,
  applyFieldOverrides,
  booleanOverrideProcessor,
  createDataFrame,
  dataLinksOverrideProcessor,
  displayNameOverrideProcessor,
  fieldMatchers,
  identityOverrideProcessor,
  numberOverrideProcessor,
  standardTransformers,
  standardTransformersRegistry,
  stringOverrideProcessor,
  thresholdsOverrideProcessor,
  transformDataFrame,
  unitOverrideProcessor,
  valueMappingsOverrideProcessor,
} from '@grafana/data';
import { firstValueFrom } from 'rxjs';

const numeric = (field) => field.type === FieldType.number;
const always = () => true;

const STANDARD = [
  ['displayName', displayNameOverrideProcessor, always, { expandTemplateVars: true }],
  ['unit', unitOverrideProcessor, always],
  ['min', numberOverrideProcessor, numeric],
  ['max', numberOverrideProcessor, numeric],
  ['fieldMinMax', booleanOverrideProcessor, numeric],
  ['decimals', numberOverrideProcessor, numeric],
  ['noValue', stringOverrideProcessor, always],
  ['color', identityOverrideProcessor, always],
  ['thresholds', thresholdsOverrideProcessor, always],
  ['mappings', valueMappingsOverrideProcessor, always],
  ['links', dataLinksOverrideProcessor, always],
  ['filterable', booleanOverrideProcessor, always],
  ['description', stringOverrideProcessor, always],
];

// What each panel may say of a field beside that. A name that is not here is one that Grafana would ignore without a word.
const GRAPH = [
  'drawStyle', 'lineInterpolation', 'barAlignment', 'barMaxWidth', 'barWidthFactor', 'lineWidth', 'fillOpacity', 'gradientMode',
  'fillBelowTo', 'lineStyle', 'spanNulls', 'insertNulls', 'showPoints', 'pointSize', 'stacking', 'transform', 'axisPlacement',
  'axisColorMode', 'axisBorderShow', 'axisLabel', 'axisWidth', 'axisSoftMin', 'axisSoftMax', 'axisCenteredZero', 'axisGridShow',
  'scaleDistribution', 'thresholdsStyle', 'hideFrom', 'lineColor', 'fillColor', 'pointColor', 'pointSymbol',
];
const CUSTOM = {
  timeseries: GRAPH,
  table: ['width', 'minWidth', 'align', 'cellOptions', 'inspect', 'filterable', 'hidden', 'hideFrom', 'displayMode', 'wrapHeaderText'],
  'state-timeline': ['lineWidth', 'fillOpacity', 'spanNulls', 'insertNulls', 'hideFrom', 'axisPlacement', 'axisWidth'],
  'status-history': ['lineWidth', 'fillOpacity', 'hideFrom', 'axisPlacement', 'axisWidth'],
  heatmap: ['scaleDistribution', 'hideFrom'],
  bargauge: [],
  stat: [],
  gauge: [],
  barchart: GRAPH,
};

export function registryOf(type) {
  const registry = new FieldConfigOptionsRegistry();
  for (const [id, process, shouldApply, settings = {}] of STANDARD) {
    registry.register({ id, path: id, name: id, editor: () => null, override: () => null, process, shouldApply, settings });
  }
  for (const name of CUSTOM[type] ?? []) {
    registry.register({
      id: `custom.${name}`,
      path: name,
      name,
      isCustom: true,
      editor: () => null,
      override: () => null,
      process: identityOverrideProcessor,
      shouldApply: type === 'table' ? always : (field) => field.type !== FieldType.time,
      settings: {},
    });
  }
  return registry;
}

standardTransformersRegistry.setInit(() =>
  Object.values(standardTransformers).map((transformation) => ({
    id: transformation.id,
    name: transformation.name,
    transformation,
    editor: () => null,
  }))
);

// What a panel of Grafana's core says of its fields where a dashboard says nothing.
const DEFAULTS = {
  timeseries: { color: { mode: 'palette-classic' } },
  barchart: { color: { mode: 'palette-classic' } },
  'state-timeline': { color: { mode: 'continuous-GrYlRd' } },
  'status-history': { color: { mode: 'continuous-GrYlRd' } },
  stat: { color: { mode: 'thresholds' } },
  bargauge: { color: { mode: 'thresholds' } },
  table: { color: { mode: 'thresholds' } },
};
const THRESHOLDS = { mode: 'absolute', steps: [{ value: null, color: 'green' }, { value: 80, color: 'red' }] };

// JSON has no infinity: the base of thresholds is null in a file.
function based(fieldConfig, type) {
  const copy = structuredClone(fieldConfig ?? {});
  copy.defaults = { ...structuredClone({ thresholds: THRESHOLDS, ...DEFAULTS[type] }), ...copy.defaults };
  const base = (thresholds) =>
    thresholds?.steps?.forEach((step) => {
      step.value = step.value ?? -Infinity;
    });
  base(copy.defaults?.thresholds);
  copy.overrides = copy.overrides ?? [];
  for (const override of copy.overrides) {
    for (const property of override.properties) {
      if (property.id === 'thresholds') {
        base(property.value);
      }
    }
  }
  return copy;
}

// The panel's frames, transformed and configured; and for each override how many fields it met.
export async function configured(panel, raw, context) {
  let frames = raw.map((frame) => createDataFrame(frame));
  const transformations = (panel.transformations ?? []).filter((t) => !t.disabled);
  if (transformations.length > 0) {
    frames = await firstValueFrom(
      transformDataFrame(transformations, frames, { interpolate: (text) => context.replace(text, {}) })
    );
  }
  const fieldConfig = based(panel.fieldConfig, panel.type);
  const registry = registryOf(panel.type);
  const series = applyFieldOverrides({
    data: frames,
    fieldConfig,
    fieldConfigRegistry: registry,
    replaceVariables: context.replace,
    theme: context.theme,
    timeZone: context.timeZone,
  });
  const overrides = fieldConfig.overrides.map(({ matcher, properties }) => {
    const match = fieldMatchers.get(matcher.id).get(matcher.options);
    const met = frames.flatMap((frame) => frame.fields.filter((field) => match(field, frame, frames)));
    return {
      matcher,
      met: met.length,
      unknown: properties.filter((p) => !registry.getIfExists(p.id)).map((p) => p.id),
    };
  });
  return { series, fieldConfig, overrides };
}
