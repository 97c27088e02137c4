// Grafana's grid: 24 columns, rows of 30 pixels, gaps of 8. Rows that are collapsed keep their panels to themselves.
import { dateTime, rangeUtil } from '@grafana/data';

export const COLUMNS = 24;
export const CELL = 30;
export const GAP = 8;

export function placed(document, width) {
  const column = (width - GAP * (COLUMNS - 1)) / COLUMNS;
  return document.panels
    .filter((panel) => panel.gridPos)
    .map((panel) => {
      const { x, y, w, h } = panel.gridPos;
      return {
        panel,
        left: Math.round(x * (column + GAP)),
        top: y * (CELL + GAP),
        width: Math.round(w * column + (w - 1) * GAP),
        height: h * CELL + (h - 1) * GAP,
      };
    });
}

// What Grafana gives a panel's queries: points wanted, and the interval that follows [ms], never finer than the panel's own.
export function plan(document, width, range) {
  const span = { from: dateTime(range.from), to: dateTime(range.to), raw: range };
  return Object.fromEntries(
    placed(document, width)
      .filter(({ panel }) => panel.type !== 'row')
      .map(({ panel, width: pixels }) => {
        const points = panel.maxDataPoints ?? pixels;
        const least = panel.interval ? panel.interval.replace('>', '') : undefined;
        return [panel.id, { points, interval_ms: rangeUtil.calculateInterval(span, points, least).intervalMs }];
      })
  );
}
