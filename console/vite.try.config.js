// Build the player's demo page; only the embedded stack serves it, at /try.
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
