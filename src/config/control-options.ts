/** Options that control which models of the repository are served, and when. */
import * as z from 'zod'
import { option } from './option.js'
import { names } from './quantities.js'

export const CONTROL_OPTIONS = {
  modelControl: option({
    schema: z.enum(['fixed', 'watch', 'explicit'], 'expected fixed, watch or explicit'),
    value: 'MODE',
    group: 'Models',
    help: 'fixed: the models present at startup; watch: follows changes in the repository; explicit: POST /v2/repository/... on the admin port.',
    default: () => 'fixed',
  }),
  loadModel: option({
    schema: names,
    value: 'NAMES',
    group: 'Models',
    help: 'Models to load at startup with explicit control, separated by commas; * means all.',
    default: () => '',
    defaultHelp: 'none',
  }),
  repositoryApi: option({
    schema: z.enum(['admin', 'public', 'off'], 'expected admin, public or off'),
    value: 'WHERE',
    group: 'Models',
    help: 'Where POST /v2/repository/... and the log settings are: admin: on the admin port; public: on both ports; off: on none. With keys they ask for the scope admin.',
    // Clients of the public port are to infer, and not to change what others get.
    default: () => 'admin',
  }),
  exitOnError: option({
    schema: z.enum(['on', 'off'], 'expected on or off').transform((word) => word === 'on'),
    value: 'on|off',
    group: 'Models',
    help: 'on: startup fails if one model cannot be served; off: the other models are served. --model-control watch always serves the others.',
    default: () => 'on',
  }),
} as const
