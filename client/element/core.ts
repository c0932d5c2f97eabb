export { createChat } from '../src/index.js'
