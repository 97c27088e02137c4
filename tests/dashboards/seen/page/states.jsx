// State timeline, drawn by us: Grafana's own is in its core, not in its library. Axes, chart, colours, texts and legend are
// the library's; the boxes follow what the documentation of the panel says: equal values in a row are one box (mergeValues),
// a state lasts until the next known one, null ends it.
import { FALLBACK_COLOR, FieldType, formattedValueToString, getFieldDisplayName } from '@grafana/data';
import { AxisPlacement, LegendDisplayMode, ScaleDirection, ScaleOrientation, UPlotChart, UPlotConfigBuilder, UPLOT_AXIS_FONT_SIZE, VizLayout, VizLegend, useTheme2 } from '@grafana/ui';
import { useMemo } from 'react';

import { Annotations, graphable } from './chart.jsx';
import { NoData } from './nothing.jsx';
import { note } from './notes.js';

// [{value, from, to}] of one field; times in ms; the last one lasts as long as the step before it.
export function boxes(times, values, merge) {
  const out = [];
  const step = times.length > 1 ? times[times.length - 1] - times[times.length - 2] : 0;
  values.forEach((value, i) => {
    if (value == null) {
      return; // what is not known ends the box before it
    }
    const to = i + 1 < times.length ? times[i + 1] : times[i] + step;
    const last = out[out.length - 1];
    if (merge && last && last.value === value && last.to === times[i]) {
      last.to = to;
    } else {
      out.push({ value, from: times[i], to });
    }
  });
  return out;
}

export function StateTimelinePanel({ panel, series, width, height, context }) {
  const theme = useTheme2();
  const options = { mergeValues: true, rowHeight: 0.9, showValue: 'auto', ...panel.options };
  const frame = useMemo(() => graphable(series, context.timeRange)[0] ?? stringly(series), [series]);
  const lanes = useMemo(() => (frame ? lanesOf(frame, series, options) : []), [frame]);
  const config = useMemo(() => lanes.length > 0 && configOf(lanes, options, context, theme), [lanes]);
  if (lanes.length === 0) {
    return <NoData panel={panel} />;
  }
  note(panel.id, 'lanes', lanes.map(({ name, boxes: found }) => ({
    name,
    boxes: found.map(({ value, from, to, text, color }) => ({ value, from, to, text, color })),
  })));
  const seen = new Map(lanes.flatMap((lane) => lane.boxes.map((box) => [box.text, box.color])));
  const items = [...seen].map(([label, color]) => ({ label, color, yAxis: 1 }));
  const legend = options.legend?.showLegend === false ? null : (
    <VizLayout.Legend placement={options.legend?.placement ?? 'bottom'}>
      <VizLegend placement={options.legend?.placement ?? 'bottom'} items={items} displayMode={options.legend?.displayMode ?? LegendDisplayMode.List} />
    </VizLayout.Legend>
  );
  const times = frame.fields.find((f) => f.type === FieldType.time).values;
  return (
    <VizLayout width={width} height={height} legend={legend}>
      {(w, h) => (
        <UPlotChart config={config} data={[times, ...lanes.map(() => times.map(() => null))]} width={w} height={h}>
          <Annotations config={config} events={context.annotations} theme={theme} />
        </UPlotChart>
      )}
    </VizLayout>
  );
}

function stringly(series) {
  return series.find((f) => f.length > 0 && f.fields.some((x) => x.type === FieldType.time) && f.fields.some((x) => x.type === FieldType.string));
}

function lanesOf(frame, series, options) {
  const time = frame.fields.find((f) => f.type === FieldType.time);
  return frame.fields
    .filter((f) => f !== time)
    .map((field) => ({
      name: getFieldDisplayName(field, frame, series),
      boxes: boxes(time.values, field.values, options.mergeValues).map((box) => {
        const shown = field.display(box.value);
        return { ...box, text: formattedValueToString(shown), color: shown.color ?? FALLBACK_COLOR };
      }),
    }));
}

function configOf(lanes, options, context, theme) {
  const builder = new UPlotConfigBuilder(context.timeZone);
  const { from, to } = context.timeRange;
  builder.addScale({ scaleKey: 'x', isTime: true, orientation: ScaleOrientation.Horizontal, direction: ScaleDirection.Right, range: () => [from.valueOf(), to.valueOf()] });
  builder.addScale({ scaleKey: 'y', isTime: false, orientation: ScaleOrientation.Vertical, direction: ScaleDirection.Up, range: () => [0, lanes.length] });
  builder.addAxis({ scaleKey: 'x', isTime: true, placement: AxisPlacement.Bottom, timeZone: context.timeZone, theme, grid: { show: true } });
  builder.addAxis({
    scaleKey: 'y',
    placement: AxisPlacement.Left,
    splits: lanes.map((_, i) => lanes.length - i - 0.5),
    values: lanes.map((lane) => lane.name),
    grid: { show: false },
    ticks: { show: false },
    gap: 15,
    theme,
  });
  lanes.forEach(() => builder.addSeries({ scaleKey: 'y', theme, pathBuilder: () => null, pointsBuilder: () => false, show: true }));
  builder.setPrepData(([data]) => data);
  builder.addHook('drawClear', (u) => paint(u, lanes, options, theme));
  return builder;
}

function paint(u, lanes, options, theme) {
  const { ctx, bbox } = u;
  const lane = bbox.height / lanes.length;
  const ratio = window.devicePixelRatio;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.font = `${Math.round(UPLOT_AXIS_FONT_SIZE * ratio)}px ${theme.typography.fontFamily}`;
  ctx.textBaseline = 'middle';
  lanes.forEach(({ boxes: found }, i) => {
    const height = lane * options.rowHeight;
    const top = bbox.top + i * lane + (lane - height) / 2;
    for (const { from, to, text, color } of found) {
      const x = u.valToPos(from, 'x', true);
      const w = Math.max(1, u.valToPos(to, 'x', true) - x);
      ctx.globalAlpha = 0.85;
      ctx.fillStyle = color;
      ctx.fillRect(x, top, w, height);
      ctx.globalAlpha = 1;
      const left = Math.max(x, bbox.left) + 4 * ratio;
      const room = Math.min(x + w, bbox.left + bbox.width) - left - 4 * ratio;
      if (options.showValue !== 'never' && height > 10 * ratio && ctx.measureText(text).width < room) {
        ctx.fillStyle = theme.colors.getContrastText(color, 4.5);
        ctx.fillText(text, left, top + height / 2);
      }
    }
  });
  ctx.restore();
}
