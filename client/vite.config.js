// Build the entries of the package into dist/, which is committed. The output contains no paths and no times, so that the
// same source gives the same files. Other entries use index.js.
import { minify } from 'terser'
import { defineConfig } from 'vite'

const ENTRIES = {
  index: 'src/index.ts',
  react: 'react/index.ts',
  pusher: 'src/pusher/index.ts',
  element: 'element/index.ts',
}

/** Next.js takes a module without this line for one of the server's, where hooks do not exist. */
const banner = ({ name }) => (name === 'react' ? "'use client'" : '')

/** Of the core every byte counts. */
const smallerCore = {
  name: 'smaller-core',
  async generateBundle(_, { 'index.js': core }) {
    core.code = (await minify(core.code, { module: true, ecma: 2020, compress: { passes: 3, unsafe_arrows: true } })).code
  },
}

export default defineConfig({
  plugins: [smallerCore],
  build: {
    outDir: 'dist',
    emptyOutDir: true,
    target: 'es2022',
    cssTarget: ['chrome123', 'firefox120', 'safari17.5'], // light-dark() stays
    modulePreload: false,
    minify: 'oxc',
    lib: { entry: ENTRIES, formats: ['es'] },
    rollupOptions: {
      // What the parts that are loaded later need of the first one is not a file of its own.
      preserveEntrySignatures: 'allow-extension',
      external: [/^react($|\/)/, /^react-dom($|\/)/],
      output: { entryFileNames: '[name].js', chunkFileNames: '[name]-[hash].js', banner, minify: true, comments: false },
    },
  },
})
