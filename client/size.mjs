// Check the size of what a page loads with createChat: dist/index.js and everything that it imports, also later. Fails above the limit.
import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { gzipSync } from 'node:zlib'

/** Bytes, compressed with gzip at its default level, each file by itself. */
const LIMIT = 8192
const IMPORT = /(?:from|import)\s*\(?\s*["'`](\.[^"'`]+)["'`]/g

async function sizes(file, found = new Map()) {
  if (found.has(file)) return found
  const text = await readFile(file, 'utf8')
  found.set(file, gzipSync(text).length)
  for (const [, name] of text.matchAll(IMPORT)) await sizes(join(dirname(file), name), found)
  return found
}

const found = await sizes(join(process.argv[2] ?? 'dist', 'index.js'))
const total = [...found.values()].reduce((sum, bytes) => sum + bytes, 0)
for (const [file, bytes] of found) console.log(`${file} ${bytes}`)
console.log(`${total} of ${LIMIT} bytes`)
if (total > LIMIT) {
  console.error(`The client is larger than ${LIMIT} bytes.`)
  process.exit(1)
}
