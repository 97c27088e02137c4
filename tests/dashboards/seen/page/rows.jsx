// Tables: Grafana's own Table (of its library; the core's table panel of this version draws with it).
import { getFieldDisplayName, stringToJsRegex } from '@grafana/data';
import { Table } from '@grafana/ui';

import { NoData } from './nothing.jsx';
import { note } from './notes.js';

export function TablePanel({ panel, series, fieldConfig, width, height, context }) {
  const options = panel.options ?? {};
  const frame = series[options.frameIndex ?? 0];
  if (!frame || frame.fields.length === 0) {
    return <NoData panel={panel} />;
  }
  note(panel.id, 'cells', cells(frame, series));
  if (frame.length === 0) {
    note(panel.id, 'nothing', fieldConfig.defaults.noValue ?? 'No data');
  }
  return (
    <Table
      data={frame}
      width={width}
      height={height}
      noHeader={options.showHeader === false}
      showTypeIcons={options.showTypeIcons}
      resizable={true}
      initialSortBy={options.sortBy}
      footerOptions={options.footer}
      enablePagination={options.footer?.enablePagination}
      cellHeight={options.cellHeight}
      timeRange={context.timeRange}
      fieldConfig={fieldConfig}
      replaceVariables={context.replace}
    />
  );
}

// What the cells say: column -> the text, colour and links of each row.
function cells(frame, series) {
  return frame.fields.map((field) => ({
    name: getFieldDisplayName(field, frame, series),
    hidden: Boolean(field.config.custom?.hidden),
    rows: field.values.slice(0, 200).map((raw, valueRowIndex) => {
      const shown = field.display(raw);
      return {
        text: `${shown.prefix ?? ''}${shown.text}${shown.suffix ?? ''}`,
        color: field.config.custom?.cellOptions?.type?.startsWith('color') ? shown.color : null,
        mapped: (field.config.mappings ?? []).some((mapping) => meets(mapping, raw)),
        links: (field.getLinks?.({ valueRowIndex }) ?? []).map((link) => link.href),
      };
    }),
  }));
}

// Whether a mapping says something of a value: a word that none meets gets the first colour of the thresholds.
function meets({ type, options }, raw) {
  switch (type) {
    case 'value':
      return Object.hasOwn(options, String(raw));
    case 'regex':
      return raw != null && stringToJsRegex(options.pattern).test(String(raw));
    case 'range':
      return raw != null && raw >= (options.from ?? -Infinity) && raw <= (options.to ?? Infinity);
    case 'special':
      return raw == null || raw === '';
    default:
      return false;
  }
}
