// Single numbers: Grafana's own BigValue and BarGauge, laid out by its VizRepeater as its core's panels do.
import { FieldType, VizOrientation, getDisplayValueAlignmentFactors, getFieldDisplayValues } from '@grafana/data';
import { BarGauge, BarGaugeDisplayMode, BigValue, BigValueTextMode, VizRepeater, useTheme2 } from '@grafana/ui';

import { note } from './notes.js';

function values(panel, series, fieldConfig, context) {
  return getFieldDisplayValues({
    fieldConfig,
    reduceOptions: panel.options?.reduceOptions ?? { calcs: ['lastNotNull'], values: false },
    replaceVariables: context.replace,
    theme: context.theme,
    data: series,
    sparkline: panel.type === 'stat' && panel.options?.graphMode !== 'none' && series.some((f) => f.fields.some((x) => x.type === FieldType.time)),
    timeZone: context.timeZone,
  });
}

function told(panel, found) {
  note(panel.id, 'values', found.map((v) => ({
    title: v.display.title,
    text: `${v.display.prefix ?? ''}${v.display.text}${v.display.suffix ?? ''}`,
    color: v.display.color,
    numeric: v.display.numeric,
    links: v.hasLinks ? v.getLinks({}).map((l) => l.href) : [],
  })));
}

export function StatPanel({ panel, series, fieldConfig, width, height, context }) {
  const theme = useTheme2();
  const options = panel.options ?? {};
  const found = values(panel, series, fieldConfig, context);
  told(panel, found);
  const auto = !options.textMode || options.textMode === BigValueTextMode.Auto;
  const textMode = auto && (fieldConfig.defaults.displayName || !panel.title) ? BigValueTextMode.ValueAndName : (options.textMode ?? BigValueTextMode.Auto);
  return (
    <VizRepeater
      getValues={() => found}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={({ value, width: w, height: h, alignmentFactors, count }) => (
        <BigValue
          value={value.display}
          count={count}
          sparkline={value.sparkline}
          colorMode={options.colorMode ?? 'value'}
          graphMode={options.graphMode ?? 'area'}
          justifyMode={options.justifyMode ?? 'auto'}
          textMode={textMode}
          alignmentFactors={alignmentFactors}
          text={options.text}
          width={w}
          height={h}
          theme={theme}
          disableWideLayout={options.wideLayout === false}
        />
      )}
      width={width}
      height={height}
      source={series}
      itemSpacing={3}
      renderCounter={0}
      autoGrid={true}
      orientation={options.orientation ?? VizOrientation.Auto}
    />
  );
}

export function BarGaugePanel({ panel, series, fieldConfig, width, height, context }) {
  const theme = useTheme2();
  const options = panel.options ?? {};
  const found = values(panel, series, fieldConfig, context);
  told(panel, found);
  return (
    <VizRepeater
      getValues={() => found}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={({ value, width: w, height: h, alignmentFactors, orientation }) => (
        <BarGauge
          value={value.display}
          width={w}
          height={h}
          orientation={orientation}
          field={value.field}
          text={options.text}
          display={value.view?.getFieldDisplayProcessor(value.colIndex)}
          theme={theme}
          itemSpacing={8}
          lcdCellWidth={12}
          displayMode={options.displayMode ?? BarGaugeDisplayMode.Gradient}
          alignmentFactors={found.length > 1 ? alignmentFactors : undefined}
          showUnfilled={options.showUnfilled ?? true}
          valueDisplayMode={options.valueMode}
          namePlacement={options.namePlacement}
        />
      )}
      width={width}
      height={height}
      source={series}
      itemSpacing={10}
      renderCounter={0}
      orientation={options.orientation ?? VizOrientation.Auto}
      minVizWidth={options.minVizWidth}
      minVizHeight={options.minVizHeight}
      maxVizHeight={options.maxVizHeight}
    />
  );
}
