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

/** What the public port tells whoever may infer. */
function forAdmins(route: Route): Route {
  return { ...route, scope: 'admin' }
}

const PROCESS_ROUTES: readonly Route[] = [
  {
    method: 'get',
    path: '/metrics',
    id: 'metrics',
    tag: 'statistics',
    summary: 'Metrics for Prometheus, over all workers, living and dead',
    scope: 'metrics',
    responses: {
      200: { description: 'The metrics.', other: { type: 'text/plain', description: "Prometheus' text." } },
    },
    errors: [],
  },
  {
    method: 'post',
    path: '/restart',
    id: 'restart',
    tag: 'processes',
    summary: 'Replaces every worker, one at a time; no request fails',
    scope: 'admin',
    responses: {
      202: { description: 'It begins.', json: 'Restarting' },
      503: { description: 'It cannot.', json: 'NotRestarting' },
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
