// The staff console: built into the package, from which the daemon serves it at /console. No names of this
// machine, no times and no inline code end up in what is built, so that the same source gives the same files.
import { defineConfig } from 'vite'

export default defineConfig({
  base: '/console/',
  build: {
    outDir: '../gre_bridge/console',
    emptyOutDir: true,
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rollupOptions: {
      output: {
        entryFileNames: 'assets/console-[hash].js',
        assetFileNames: 'assets/[name]-[hash][extname]',
      },
    },
  },
})
