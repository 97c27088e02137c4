// The page: window.seen.plan() says what each panel's queries get, draw() lays a dashboard out, told() says what is seen.
import '@fontsource/inter/latin-400.css';
import '@fontsource/inter/latin-500.css';
import '@fontsource/roboto-mono/latin-400.css';

import { EventBusSrv, ThemeContext, createTheme, dateTime, locationUtil, renderTextPanelMarkdown } from '@grafana/data';
import { ErrorBoundary, GlobalStyles, PanelChrome, PanelContextProvider, PortalContainer } from '@grafana/ui';
import { createRoot } from 'react-dom/client';

import { TimeSeriesPanel } from './chart.jsx';
import { configured } from './fields.js';
import { CELL, GAP, placed, plan } from './layout.js';
import { contrasts, cutOff } from './measure.js';
import { forget, note, noted } from './notes.js';
import { TablePanel } from './rows.jsx';
import { BarGaugePanel, StatPanel } from './stat.jsx';
import { StateTimelinePanel } from './states.jsx';
import { replacer } from './words.js';

const PANELS = { timeseries: TimeSeriesPanel, stat: StatPanel, bargauge: BarGaugePanel, table: TablePanel, text: TextPanel };
// Panels whose drawing lives in Grafana's core and not in its library: drawn by us from the library's parts, and marked.
const OURS = { 'state-timeline': StateTimelinePanel };

function TextPanel({ panel, context }) {
  const html = renderTextPanelMarkdown(context.replace(panel.options?.content ?? '', {}));
  return <div className="markdown-html" dangerouslySetInnerHTML={{ __html: html }} />;
}

let root;
let theme;

async function draw(job) {
  const { document: board, width, range, variables, results, annotations, look, margin } = job;
  forget();
  theme = createTheme({ colors: { mode: look } });
  const replace = replacer(variables, range);
  locationUtil.initialize({
    config: { appSubUrl: '' },
    getVariablesUrlParams: () => Object.fromEntries(Object.entries(variables).map(([name, v]) => [`var-${name}`, v.value])),
    getTimeRangeForUrl: () => ({ from: range.from, to: range.to }),
  });
  const context = {
    theme,
    replace,
    annotations,
    timeZone: board.timezone || 'utc',
    timeRange: { from: dateTime(range.from), to: dateTime(range.to), raw: { from: dateTime(range.from), to: dateTime(range.to) } },
  };
  const boxes = placed(board, width);
  const items = [];
  for (const box of boxes) {
    const { panel } = box;
    const title = replace(panel.title ?? '', {});
    note(panel.id, 'title', title);
    note(panel.id, 'type', panel.type);
    if (panel.type === 'row') {
      items.push({ ...box, title });
      continue;
    }
    const result = results[panel.id] ?? { frames: [] };
    const kind = PANELS[panel.type] ?? OURS[panel.type];
    let error = result.error ?? (kind ? undefined : `no panel of type ${panel.type} here`);
    let ready = { series: [], fieldConfig: { defaults: {}, overrides: [] }, overrides: [] };
    try {
      ready = await configured(panel, result.frames ?? [], context);
    } catch (thrown) {
      error = error ?? String(thrown);
    }
    note(panel.id, 'overrides', ready.overrides);
    if (error) {
      note(panel.id, 'error', error);
    }
    items.push({ ...box, title, kind, error, ...ready });
  }
  const height = Math.max(...boxes.map((b) => b.top + b.height)) + 56;
  root?.unmount();
  root = createRoot(document.getElementById('root'));
  document.documentElement.style.background = theme.colors.background.canvas;
  await new Promise((done) => {
    root.render(
      <ThemeContext.Provider value={theme}>
        <GlobalStyles />
        <Board items={items} board={board} job={job} context={context} height={height} margin={margin} done={done} />
        <PortalContainer />
      </ThemeContext.Provider>
    );
  });
  return { width: width + 2 * GAP, height };
}

function Board({ items, board, job, context, height, margin, done }) {
  const shown = Object.values(job.variables).filter((v) => !v.hidden);
  return (
    <div ref={() => setTimeout(done, 0)} style={{ width: job.width + 2 * GAP, height, position: 'relative', color: theme.colors.text.primary }}>
      <div style={{ position: 'absolute', top: 8, left: GAP, right: GAP, display: 'flex', gap: 12, alignItems: 'center', height: 32, whiteSpace: 'nowrap' }}>
        <span style={{ ...theme.typography.h4 }}>{board.title}</span>
        {shown.map((v) => (
          <span key={v.name} style={{ border: `1px solid ${theme.colors.border.medium}`, borderRadius: 2, padding: '2px 8px', ...theme.typography.bodySmall }}>
            <b>{v.label || v.name}</b> {String(v.text)}
          </span>
        ))}
        <span style={{ marginLeft: 'auto', color: theme.colors.text.secondary, ...theme.typography.bodySmall }}>{margin}</span>
      </div>
      {items.map((item) => (
        <div key={item.panel.id} data-panel={item.panel.id} style={{ position: 'absolute', left: item.left + GAP, top: item.top + 48, width: item.width, height: item.height }}>
          {item.panel.type === 'row' ? (
            <div style={{ height: CELL, display: 'flex', alignItems: 'center', ...theme.typography.h5 }}>{item.title}</div>
          ) : (
            <Panel item={item} context={context} />
          )}
        </div>
      ))}
    </div>
  );
}

function Panel({ item, context }) {
  const { panel, title, width, height, error, kind: Kind } = item;
  return (
    <PanelContextProvider value={{ eventsScope: 'seen', eventBus: new EventBusSrv() }}>
      <PanelChrome
        title={OURS[panel.type] ? `${title} (drawn by us)` : title}
        description={panel.description ? () => panel.description : undefined}
        width={width}
        height={height}
        displayMode={panel.transparent ? 'transparent' : 'default'}
        statusMessage={error}
        hoverHeader={!title}
      >
        {(inner, innerHeight) =>
          Kind && !error ? (
            <ErrorBoundary>
              {({ error: thrown }) => {
                if (thrown) {
                  note(panel.id, 'error', String(thrown));
                  return <pre>{String(thrown)}</pre>;
                }
                return <Kind {...item} width={inner} height={innerHeight} context={context} />;
              }}
            </ErrorBoundary>
          ) : (
            <pre style={{ whiteSpace: 'pre-wrap' }}>{error}</pre>
          )
        }
      </PanelChrome>
    </PanelContextProvider>
  );
}

// Charts draw in a frame of their own, tables measure themselves in another.
async function settled() {
  await document.fonts.ready;
  for (let i = 0; i < 4; i++) {
    await new Promise((next) => requestAnimationFrame(() => setTimeout(next, 30)));
  }
}

// What is on the page: per panel what it noted, its text, and what of it is cut off.
function told() {
  return Object.fromEntries(
    Object.entries(noted()).map(([id, notes]) => {
      const element = document.querySelector(`[data-panel="${id}"]`);
      const faint = element ? contrasts(element, theme.colors.background.primary).filter((c) => c.contrast < 4.5) : [];
      return [id, { ...notes, text: element?.innerText ?? '', cut: element ? cutOff(element) : [], faint }];
    })
  );
}

window.seen = { plan, draw, settled, told };
