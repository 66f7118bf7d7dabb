/** Options of the routes in an app of the caller. */
import * as z from 'zod'
import { OnecopyError } from '../errors.js'
import type { Mountable } from './mountable.js'

const MIB = 1024 * 1024

export interface RouteOptions {
  /** The path in front of /v2, such as /ml. Express and Fastify set it. */
  readonly prefix?: string
  /** Other attached models under the same routes. */
  readonly beside?: readonly Mountable[]
  /** Largest request body, also after decompression. Default: 64 MiB. */
  readonly maxBodyBytes?: number
  /** Largest answer, before compression. Default: twice as much. */
  readonly maxResponseBytes?: number
}

export interface RouteChoices {
  readonly prefix: string
  readonly maxBodyBytes: number
  readonly maxResponseBytes: number
  readonly packageVersion: string
}

const RouteOptionsSchema = z.strictObject({
  prefix: z
    .string()
    .regex(/^(\/[^/?#\s]+)*$/, 'expected a path such as /ml')
    .default(''),
  beside: z.array(z.unknown()).optional(),
  maxBodyBytes: z
    .int()
    .positive()
    .default(64 * MIB),
  maxResponseBytes: z.int().positive().optional(),
})

/** @throws OnecopyError CONFIG_INVALID naming what was expected. */
export function readRouteOptions(options: RouteOptions): Omit<RouteChoices, 'packageVersion'> {
  const parsed = RouteOptionsSchema.safeParse(options)
  if (!parsed.success) throw new OnecopyError('CONFIG_INVALID', `routes: ${z.prettifyError(parsed.error)}`)
  const { prefix, maxBodyBytes, maxResponseBytes = 2 * maxBodyBytes } = parsed.data
  return { prefix, maxBodyBytes, maxResponseBytes }
}
