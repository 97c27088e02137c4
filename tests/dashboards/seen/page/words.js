// Grafana's variables in texts and links. The real ones live in Grafana's core; this knows the forms that its
// documentation names, and refuses others, so that a link that Grafana would leave as it is fails here.
import { dateTimeFormatISO, getFieldDisplayName } from '@grafana/data';

const PATTERN = /\$\{([^}:]+)(?::([^}]+))?\}|\$(\w+)/g;

const encode = (value) => encodeURIComponent(value).replace(/[!'()*]/g, (c) => '%' + c.charCodeAt(0).toString(16).toUpperCase());

function formatted(value, format, name) {
  const list = Array.isArray(value) ? value : [value];
  const glob = Array.isArray(value) && list.length > 1 ? `{${list.join(',')}}` : String(list[0] ?? '');
  switch (format) {
    case undefined:
    case 'glob':
      return glob;
    case 'raw':
    case 'csv':
      return list.join(',');
    case 'text':
      return list.join(' + ');
    case 'percentencode':
      return encode(glob);
    case 'uriencode':
      return encodeURI(glob);
    case 'queryparam':
      return list.map((v) => `var-${encodeURIComponent(name)}=${encode(String(v))}`).join('&');
    default:
      throw new Error(`unknown format :${format} of a variable`);
  }
}

// A replacer for one dashboard. `variables`: name -> {value, text}; `range`: {from, to} [ms].
export function replacer(variables, range) {
  const replaceIn = (text, scoped, format) =>
    String(text ?? '').replace(PATTERN, (whole, braced, own, bare) => {
      const name = braced ?? bare;
      const form = own ?? (typeof format === 'string' ? format : undefined);
      const found = resolve(name, own, scoped);
      return found === undefined ? whole : formatted(found, form, name);
    });

  function resolve(name, form, scoped) {
    if (name === '__all_variables') {
      const chosen = (v) => (variables[v].all ? '$__all' : variables[v].value);
      return Object.keys(variables).map((v) => formatted(chosen(v), 'queryparam', v)).join('&');
    }
    if (name === '__url_time_range') {
      return `from=${range.from}&to=${range.to}`;
    }
    if (name === '__from' || name === '__to') {
      const ms = name === '__from' ? range.from : range.to;
      return form === 'date' ? dateTimeFormatISO(ms, { timeZone: 'utc' }) : String(ms);
    }
    const context = scoped?.__dataContext?.value;
    if (name.startsWith('__value.')) {
      return context && value(context, name.slice('__value.'.length));
    }
    if (name.startsWith('__data.fields')) {
      return context && cell(context, name.slice('__data.fields'.length));
    }
    if (name.startsWith('__field.')) {
      return context && fieldPart(context, name.slice('__field.'.length));
    }
    if (name === '__series.name') {
      return context && getFieldDisplayName(context.field, context.frame, context.data);
    }
    if (scoped?.[name]) {
      return scoped[name].value;
    }
    return variables[name]?.value;
  }

  return (text, scoped, format) => replaceIn(text, scoped, format);
}

function value({ field, frame, rowIndex, calculatedValue }, part) {
  const raw = rowIndex !== undefined ? field.values[rowIndex] : calculatedValue?.numeric;
  switch (part) {
    case 'raw':
      return raw;
    case 'numeric':
      return Number(raw);
    case 'text':
      return rowIndex !== undefined ? field.display(raw).text : calculatedValue?.text;
    case 'time':
      return frame.fields.find((f) => f.type === 'time')?.values[rowIndex];
    default:
      return undefined;
  }
}

// ${__data.fields.name}, ${__data.fields["a name"]}, ${__data.fields[0]}; a .text, .numeric or .raw after it.
function cell({ frame, rowIndex }, path) {
  const match = /^(?:\.([\w-]+)|\["([^"]+)"\]|\[(\d+)\])(?:\.(text|numeric|raw))?$/.exec(path);
  if (!match || rowIndex === undefined) {
    return undefined;
  }
  const [, dotted, quoted, index, part] = match;
  const wanted = dotted ?? quoted;
  const field = index !== undefined ? frame.fields[Number(index)] : frame.fields.find((f) => f.name === wanted || f.config.displayName === wanted);
  if (!field) {
    return undefined;
  }
  const raw = field.values[rowIndex];
  return part === 'text' ? field.display(raw).text : part === 'numeric' ? Number(raw) : raw;
}

function fieldPart({ field, frame, data }, part) {
  if (part === 'name' || part === 'displayName') {
    return getFieldDisplayName(field, frame, data);
  }
  return part.startsWith('labels.') ? field.labels?.[part.slice('labels.'.length)] : undefined;
}
