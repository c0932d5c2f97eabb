import { defineConfig } from 'vite'

/** A portal's own server answers this path, with the token of the person who is signed in there. */
const tokens = ({ middlewares }) =>
  void middlewares.use('/api/chat-token', (_request, response) => response.end(process.env.CHAT_TOKEN))

export default defineConfig({
  plugins: [{ name: 'tokens', configureServer: tokens, configurePreviewServer: tokens }],
})
