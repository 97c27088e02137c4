// Time series: Grafana's own TimeSeries (of its library) with its legend; annotations are lines of ours.
import { FieldType, applyNullInsertThreshold, getFieldDisplayName, getFieldSeriesColor } from '@grafana/data';
import { LegendDisplayMode, TimeSeries, TooltipDisplayMode, useTheme2 } from '@grafana/ui';
import { useLayoutEffect, useMemo, useRef } from 'react';

import { note } from './notes.js';
import { NoData } from './nothing.jsx';

// As the core's panel does before it draws: booleans are numbers, frames without a time or a number are none, and where the
// dashboard asks for nulls in holes (insertNulls) they are put in, once.
export function graphable(series, { from, to }) {
  return series
    .map((frame) => ({
      ...frame,
      fields: frame.fields.map((field) =>
        field.type === FieldType.boolean
          ? { ...field, type: FieldType.number, values: field.values.map((v) => (v == null ? v : v ? 1 : 0)) }
          : { ...field, state: { ...field.state } }
      ),
    }))
    .filter(
      (frame) =>
        frame.length > 0 &&
        frame.fields.some((f) => f.type === FieldType.time) &&
        frame.fields.some((f) => f.type === FieldType.number)
    )
    .map((frame) => applyNullInsertThreshold({ frame, refFieldPseudoMin: from.valueOf(), refFieldPseudoMax: to.valueOf() }));
}

export function TimeSeriesPanel({ panel, series, width, height, context }) {
  const theme = useTheme2();
  const frames = useMemo(() => graphable(series, context.timeRange), [series]);
  if (frames.length === 0) {
    return <NoData panel={panel} />;
  }
  const legend = { calcs: [], displayMode: LegendDisplayMode.List, placement: 'bottom', showLegend: true, ...panel.options?.legend };
  return (
    <TimeSeries
      frames={frames}
      structureRev={1}
      timeRange={context.timeRange}
      timeZone={context.timeZone}
      width={width}
      height={height}
      legend={legend}
      options={panel.options}
    >
      {(config, aligned) => {
        note(panel.id, 'plotted', plotted(aligned, frames, theme));
        note(panel.id, 'tooltip', panel.options?.tooltip ?? { mode: TooltipDisplayMode.Single });
        return <Annotations config={config} events={context.annotations} theme={theme} />;
      }}
    </TimeSeries>
  );
}

// What is drawn: each series' name, colour and points over the joined times; null is a gap, undefined is drawn over.
function plotted(aligned, frames, theme) {
  const [time, ...rest] = aligned.fields;
  return {
    times: [...time.values],
    series: rest.map((field) => {
      const origin = field.state?.origin;
      const own = origin ? frames[origin.frameIndex].fields[origin.fieldIndex] : field;
      return {
        name: getFieldDisplayName(own, origin ? frames[origin.frameIndex] : aligned, frames),
        labels: own.labels ?? {},
        color: getFieldSeriesColor(own, theme).color,
        style: own.config.custom?.drawStyle ?? 'line',
        stacking: own.config.custom?.stacking?.mode ?? 'none',
        spanNulls: own.config.custom?.spanNulls ?? false,
        points: own.config.custom?.showPoints ?? 'auto',
        values: field.values.map((v) => (v === undefined ? 'over' : v)),
      };
    }),
  };
}

export function Annotations({ config, events, theme }) {
  const latest = useRef(events);
  latest.current = events;
  useLayoutEffect(() => {
    config.addHook('draw', (u) => {
      const { ctx, bbox } = u;
      ctx.save();
      for (const event of latest.current) {
        const x = u.valToPos(event.time, 'x', true);
        const end = event.timeEnd ? u.valToPos(event.timeEnd, 'x', true) : x;
        if (end < bbox.left || x > bbox.left + bbox.width) {
          continue;
        }
        const colour = theme.visualization.getColorByName(event.color ?? 'red');
        const from = Math.max(x, bbox.left);
        const to = Math.min(end, bbox.left + bbox.width);
        if (to > from) {
          ctx.globalAlpha = 0.1;
          ctx.fillStyle = colour;
          ctx.fillRect(from, bbox.top, to - from, bbox.height);
        }
        ctx.globalAlpha = 1;
        ctx.strokeStyle = colour;
        ctx.setLineDash([5, 5]);
        for (const edge of end > x ? [x, end] : [x]) {
          if (edge >= bbox.left && edge <= bbox.left + bbox.width) {
            ctx.beginPath();
            ctx.moveTo(edge, bbox.top);
            ctx.lineTo(edge, bbox.top + bbox.height);
            ctx.stroke();
          }
        }
      }
      ctx.restore();
    });
  }, [config, theme]);
  return null;
}
