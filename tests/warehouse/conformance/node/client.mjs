// The official client of Node.js against a warehouse: what an application does, with and without packing.
// Prints one line of JSON for each check: {"check": ..., "ok": ..., "got": ...}.
import { readFileSync } from 'node:fs'
import { ClickHouseLogLevel, createClient } from '@clickhouse/client'

const url = process.env.TGW_CLICKHOUSE_URL
const username = process.env.TGW_CLICKHOUSE_USER
const password = readFileSync(process.env.TGW_CLICKHOUSE_PASSWORD_FILE, 'utf8').trim()
const database = process.env.TGW_CLICKHOUSE_DATABASE
const table = process.env.TGW_TABLE

async function check(name, run, expected) {
  let got
  try {
    got = await run()
  } catch (error) {
    got = `${error.code ?? ''} ${error.type ?? ''} ${error.message}`.trim()
  }
  const ok = JSON.stringify(got) === JSON.stringify(expected)
  console.log(JSON.stringify({ check: name, ok, got, expected }))
}

async function failing(run) {
  try {
    await run()
  } catch (error) {
    return [error.code, error.type]
  }
  return 'no error'
}

async function story(name, options) {
  const client = createClient({ url, username, password, database, log: { level: ClickHouseLogLevel.OFF }, ...options })
  const json = async (query, more = {}) => (await client.query({ query, format: 'JSONEachRow', ...more })).json()

  await check(`${name}: ping`, async () => (await client.ping()).success, true)
  await check(`${name}: select`, () => json('SELECT toUInt8(number) AS n FROM numbers(3)'), [{ n: 0 }, { n: 1 }, { n: 2 }])
  await check(`${name}: parameters`,
    () => json('SELECT {s:String} AS s, {a:Array(UInt8)} AS a', { query_params: { s: "it's\n\\", a: [1, 2] } }),
    [{ s: "it's\n\\", a: [1, 2] }])
  await check(`${name}: settings`,
    () => json('SELECT 1 AS x', { clickhouse_settings: { output_format_json_quote_64bit_integers: 0, extremes: 1 } }),
    [{ x: 1 }])
  await check(`${name}: insert`, async () => {
    await client.insert({ table, values: [{ a: 1, b: `node-${name}` }, { a: 2, b: `node-${name}` }], format: 'JSONEachRow' })
    return json(`SELECT toUInt8(sum(a)) AS s FROM ${table} WHERE b = {b:String}`, { query_params: { b: `node-${name}` } })
  }, [{ s: 3 }])
  await check(`${name}: command`, async () => {
    const done = await client.command({ query: `INSERT INTO ${table} (a, b) SELECT 5, 'node-command'` })
    return typeof done.query_id
  }, 'string')
  await check(`${name}: stream`, async () => {
    const rows = await client.query({ query: 'SELECT number FROM numbers(200000)', format: 'JSONCompactEachRow' })
    let count = 0
    for await (const some of rows.stream()) count += some.length
    return count
  }, 200000)
  await check(`${name}: exec`, async () => {
    const { stream } = await client.exec({ query: 'SELECT 1 FORMAT CSV' })
    let text = ''
    for await (const chunk of stream) text += chunk
    return text
  }, '1\n')
  await check(`${name}: session`, () => json('SELECT 1 AS x', { session_id: 'one' }), [{ x: 1 }])
  await check(`${name}: syntax error`, () => failing(() => client.query({ query: 'SELEC 1' })), ['62', 'SYNTAX_ERROR'])
  await check(`${name}: unknown table`, () => failing(() => client.query({ query: 'SELECT * FROM nowhere' })), ['60', 'UNKNOWN_TABLE'])
  await check(`${name}: unknown setting`,
    () => failing(() => client.query({ query: 'SELECT 1', clickhouse_settings: { no_such_setting: 1 } })), ['115', 'UNKNOWN_SETTING'])
  await client.close()
}

await story('plain', {})
await story('gzip answers', { compression: { response: true, request: false } })
await story('gzip both ways', { compression: { response: true, request: true } })
