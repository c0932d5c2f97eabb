// Check the size of what a page loads with createChat: dist/index.js and what it imports. Fails above the limit. What is loaded
// later, when it is first used, is listed.
import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { gzipSync } from 'node:zlib'

/** Bytes, compressed with gzip at its default level, each file by itself. */
const LIMIT = 8192
const NOW = /(?:from|import)\s*["'`](\.[^"'`]+)["'`]/g
const LATER = /import\(\s*["'`](\.[^"'`]+)["'`]/g

const sizes = new Map()

/** The files that a file imports at once or later, itself included. */
async function reach(file, patterns) {
  const text = await readFile(file, 'utf8')
  sizes.set(file, gzipSync(text).length)
  const found = new Set([file])
  for (const pattern of patterns) {
    for (const [, name] of text.matchAll(pattern)) {
      const other = join(dirname(file), name)
      if (!found.has(other) && other !== file) for (const each of await reach(other, patterns.filter((one) => one !== LATER))) found.add(each)
    }
  }
  return found
}

const entry = join(process.argv[2] ?? 'dist', 'index.js')
const now = await reach(entry, [NOW])
const all = await reach(entry, [NOW, LATER])
const sum = (files) => [...files].reduce((total, file) => total + sizes.get(file), 0)
for (const file of all) console.log(`${file} ${sizes.get(file)}${now.has(file) ? '' : ' (later)'}`)
console.log(`at once ${sum(now)} of ${LIMIT} bytes, all together ${sum(all)}`)
if (sum(now) > LIMIT) {
  console.error(`createChat is larger than ${LIMIT} bytes.`)
  process.exit(1)
}
