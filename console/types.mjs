// Generate src/openapi.d.ts, the types of the REST API, from docs/openapi.json. `npm run types -- FILE` writes to FILE.
// Descriptions and examples are removed, so that changing them changes no type.
import { readFile, writeFile } from 'node:fs/promises'
import openapiTS, { astToString } from 'openapi-typescript'

const TEXT = new Set(['title', 'description', 'summary', 'example', 'examples'])

/** Copy a schema without its texts. Keys below `properties` are names of fields, which are kept. */
function withoutText(value, names = false) {
  if (Array.isArray(value)) return value.map((item) => withoutText(item))
  if (value === null || typeof value !== 'object') return value
  const entries = Object.entries(value).filter(([key]) => names || !TEXT.has(key))
  return Object.fromEntries(entries.map(([key, item]) => [key, withoutText(item, !names && key === 'properties')]))
}

const here = import.meta.dirname
const { info, ...document } = JSON.parse(await readFile(`${here}/../docs/openapi.json`, 'utf8'))
const tree = await openapiTS({ info: { title: info.title, version: '' }, ...withoutText(document) })
const types = `// Generated from docs/openapi.json by \`npm run types\`. Do not edit.\n\n${astToString(tree)}`
await writeFile(process.argv[2] ?? `${here}/src/openapi.d.ts`, types)
