/** `@gre-bridge/client/element`: defines `<gre-chat>` in a page that has a bundler. `url` is the daemon's address. */

import { define } from './element'

/** Define the element. `url`: the daemon's address for elements without the attribute `url`; "" is the page's origin. */
export function defineChat(url = '', name = 'gre-chat'): void {
  define({ core: () => import('./core'), panel: () => import('./panel') }, url, name)
}
