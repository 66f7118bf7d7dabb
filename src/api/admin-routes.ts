/** Every route of the admin port; a test holds it to the router. */
import { CONFIGURATION_ROUTES, STATISTICS_ROUTES } from './extension-routes.js'
import type { Route } from './route.js'
import { SETTINGS_ROUTES } from './settings-routes.js'
import {
  DOCUMENTATION_ROUTES,
  HEALTH_ROUTES,
  MODEL_READ_ROUTES,
  SERVER_METADATA_ROUTE,
} from './shared-routes.js'

/** What the public port shows to clients that may infer. */
function forAdmins(route: Route): Route {
  return { ...route, scope: 'admin' }
}

const PROCESS_ROUTES: readonly Route[] = [
  {
    method: 'get',
    path: '/metrics',
    id: 'metrics',
    tag: 'statistics',
    summary: 'Prometheus metrics over all workers, including those that have exited',
    scope: 'metrics',
    responses: {
      200: { description: 'Metrics.', other: { type: 'text/plain', description: 'Prometheus text format.' } },
    },
    errors: [],
  },
  {
    method: 'post',
    path: '/restart',
    id: 'restart',
    tag: 'processes',
    summary: 'Restarts the workers one at a time, without failing requests',
    scope: 'admin',
    responses: {
      202: { description: 'The restart has started.', json: 'Restarting' },
      503: { description: 'A restart is not possible now.', json: 'NotRestarting' },
    },
    errors: [],
  },
]

export const ADMIN_ROUTES: readonly Route[] = [
  ...HEALTH_ROUTES,
  SERVER_METADATA_ROUTE,
  ...PROCESS_ROUTES,
  ...[...STATISTICS_ROUTES, ...MODEL_READ_ROUTES, ...CONFIGURATION_ROUTES, ...SETTINGS_ROUTES].map(forAdmins),
  ...DOCUMENTATION_ROUTES,
]
