// Build <gre-chat> into the package; the daemon serves it. First `core` and `panel`, under names with a hash, then the
// loader, a classic script that knows these names. The output contains no paths and no times, so that the same source gives the
// same files.
import { readdirSync } from 'node:fs'
import { gzipSync } from 'node:zlib'
import { build, defineConfig } from 'vite'

/** Bytes of the loader, compressed with gzip at its best level, as the daemon sends it. */
const LIMIT = 3072

/** light-dark() and color-scheme stay as they are. */
const CSS_TARGET = ['chrome123', 'firefox120', 'safari17.5']

const shared = { configFile: false, logLevel: 'warn', publicDir: false }

/** Build the loader beside the files that are there. */
async function buildLoader(outDir) {
  const files = readdirSync(outDir)
  const name = (stem) => JSON.stringify(files.find((file) => new RegExp(`^${stem}-[\\w-]{8}\\.js$`).test(file)))
  await build({
    ...shared,
    define: { CORE: name('core'), PANEL: name('panel') },
    build: {
      outDir,
      emptyOutDir: false,
      target: 'es2022',
      cssTarget: CSS_TARGET,
      lib: { entry: `${import.meta.dirname}/loader.ts`, formats: ['iife'], name: 'gre', fileName: () => 'widget.js' },
    },
    plugins: [
      {
        name: 'limit',
        generateBundle(_, bundle) {
          const bytes = gzipSync(bundle['widget.js'].code, { level: 9 }).length
          if (bytes > LIMIT) this.error(`widget.js has ${bytes} bytes; the limit is ${LIMIT}`)
        },
      },
    ],
  })
}

export default defineConfig({
  root: import.meta.dirname,
  publicDir: false,
  build: {
    outDir: '../../gre_bridge/widget',
    emptyOutDir: true,
    target: 'es2022',
    cssTarget: CSS_TARGET,
    modulePreload: false,
    minify: 'oxc',
    // As a library: pages have no preloads to wait for.
    lib: { entry: { core: `${import.meta.dirname}/core.ts`, panel: `${import.meta.dirname}/panel.tsx` }, formats: ['es'] },
    rollupOptions: {
      // What is loaded later uses the first file; no entry uses another.
      preserveEntrySignatures: 'allow-extension',
      output: { entryFileNames: '[name]-[hash].js', chunkFileNames: '[name]-[hash].js', minify: true, comments: false },
    },
  },
  plugins: [
    {
      name: 'loader',
      async writeBundle({ dir }) {
        await buildLoader(dir)
      },
    },
  ],
})
