/** The console's entry point: reads the sign-in, then renders the page. */

import { render } from 'preact'
import { Auth, type Config } from './auth'
import './style/base.css'
import './style/desk.css'
import './style/conversation.css'
import './style/health.css'
import './style/find.css'
import './style/files.css'
import { applyTheme } from './theme'
import { App } from './views/App'
import { guardDrops } from './views/FileInput'

async function config(): Promise<Config> {
  try {
    return (await (await fetch('/console/config.json', { credentials: 'omit' })).json()) as Config
  } catch {
    return { supabaseUrl: null, anonKey: null }
  }
}

applyTheme()
guardDrops()
const auth = new Auth(config())
auth.readAddress()
const root = document.getElementById('app')
if (root) render(<App auth={auth} />, root)
