// The player's page to try it with: served by the embedded stack alone, at /try.
import { defineConfig } from 'vite'
import shared from './vite.config.js'

export default defineConfig({
  root: 'try',
  base: '/try/',
  build: {
    ...shared.build,
    outDir: '../../gre_bridge/devstack/try',
    rollupOptions: {
      output: { entryFileNames: 'assets/try-[hash].js', assetFileNames: 'assets/[name]-[hash][extname]' },
    },
  },
})
