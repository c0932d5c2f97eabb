// Writes src/openapi.d.ts, the types of REST, from docs/openapi.json. Run by `npm run types`; `npm run types -- FILE`
// writes to another file. Descriptions and examples are left out: a change of wording there changes no type.
import { readFile, writeFile } from 'node:fs/promises'
import openapiTS, { astToString } from 'openapi-typescript'

const TEXT = new Set(['title', 'description', 'summary', 'example', 'examples'])

/** A copy without texts. A field may have such a name too: below `properties` the keys are names of fields. */
function withoutText(value, names = false) {
  if (Array.isArray(value)) return value.map((item) => withoutText(item))
  if (value === null || typeof value !== 'object') return value
  const kept = Object.entries(value).filter(([key]) => names || !TEXT.has(key))
  return Object.fromEntries(kept.map(([key, item]) => [key, withoutText(item, !names && key === 'properties')]))
}

const here = import.meta.dirname
const { info, ...document } = JSON.parse(await readFile(`${here}/../docs/openapi.json`, 'utf8'))
const tree = await openapiTS({ info: { title: info.title, version: '' }, ...withoutText(document) })
const types = `// Generated from docs/openapi.json by \`npm run types\`. Do not edit.\n\n${astToString(tree)}`
await writeFile(process.argv[2] ?? `${here}/src/openapi.d.ts`, types)
