/**
 * Caches result rows by molecule. With Redis, in the layout of ersilia-pack, all workers and servers of a
 * model share them. Without Redis, each worker has its own cache. The cache never fails a request: on read
 * errors rows are computed, and errors are logged once.
 */
import { LRUCache } from 'lru-cache'
import * as z from 'zod'
import { messageOf } from '../errors.js'
import type { Log } from '../log.js'
import { jsonText, type Row } from './orient.js'

const SEVEN_DAYS_SECONDS = 7 * 24 * 3600
const MEMORY_ROWS = 100_000
/** Rows and their keys; clients control the length of the keys. */
const MEMORY_BYTES = 64 * 1024 * 1024
const CONNECT_TIMEOUT_MS = 2000

const RowSchema = z.array(z.union([z.number(), z.string(), z.null()]))

export interface ResultCache {
  /** Whether other processes see it too. */
  readonly isShared: boolean
  /** By input: its row, or null where there is none. */
  fetch(inputs: readonly string[]): Promise<(Row | null)[]>
  save(inputs: readonly string[], rows: readonly Row[]): Promise<void>
  close(): Promise<void>
}

const CELL_BYTES = 16

/** Approximate memory of a row and its key; text takes at most two bytes per character. */
function memoryOf(row: Row, key: string): number {
  return row.reduce<number>(
    (bytes, cell) => bytes + CELL_BYTES + (typeof cell === 'string' ? 2 * cell.length : 0),
    CELL_BYTES + 2 * key.length,
  )
}

export function memoryCache(): ResultCache {
  const rows = new LRUCache<string, Row>({
    max: MEMORY_ROWS,
    maxSize: MEMORY_BYTES,
    sizeCalculation: memoryOf,
    ttl: SEVEN_DAYS_SECONDS * 1000,
  })
  return {
    isShared: false,
    fetch: async (inputs) => inputs.map((input) => rows.get(input) ?? null),
    save: async (inputs, computed) => {
      for (const [i, input] of inputs.entries()) rows.set(input, computed[i] as Row)
    },
    close: async () => rows.clear(),
  }
}

export interface RedisOptions {
  readonly url: string
  /** The model's Identifier, used in the Redis keys. */
  readonly identifier: string
  readonly columns: readonly string[]
  readonly log: Log
}

/** Parses a stored row; null if it is invalid or of another model. */
function parseRow(text: string | null | undefined, width: number): Row | null {
  if (text === null || text === undefined) return null
  try {
    const row = RowSchema.parse(JSON.parse(text))
    return row.length === width ? row : null
  } catch {
    return null
  }
}

export async function redisCache({ url, identifier, columns, log }: RedisOptions): Promise<ResultCache> {
  // Loaded only when Redis is configured, because the package is large.
  const { createClient } = await import('@redis/client')
  const key = `cache:${identifier}`
  const headerKey = `${identifier}:header`
  const client = createClient({
    url,
    disableOfflineQueue: true,
    socket: { connectTimeout: CONNECT_TIMEOUT_MS, reconnectStrategy: (tries) => Math.min(tries * 100, 5000) },
  })
  let isSaid = false
  const lost = (thrown: unknown) => {
    if (!isSaid)
      log.warn({ reason: messageOf(thrown) }, 'the result cache is unavailable: all rows are computed')
    isSaid = true
  }
  client.on('error', lost)
  client.on('ready', () => {
    isSaid = false
  })
  const tried = new Promise<void>((resolve) => {
    client.once('ready', () => resolve())
    client.once('error', () => resolve())
  })
  client.connect().catch(lost)
  // Waits for the first connection attempt, so that the first request finds a connected cache or none.
  await tried
  return {
    isShared: true,
    async fetch(inputs) {
      try {
        const found = await client.hmGet(key, [...inputs])
        return found.map((text) => parseRow(text, columns.length))
      } catch (thrown) {
        lost(thrown)
        return inputs.map(() => null)
      }
    },
    async save(inputs, rows) {
      if (inputs.length === 0) return
      try {
        const fields = inputs.map((input, i): [string, string] => [
          input,
          jsonText(rows[i], [rows[i] as Row]),
        ])
        await client
          .multi()
          .hSet(key, fields)
          .expire(key, SEVEN_DAYS_SECONDS)
          .setEx(headerKey, SEVEN_DAYS_SECONDS, JSON.stringify(columns))
          .exec()
      } catch (thrown) {
        lost(thrown)
      }
    },
    close: async () => client.destroy(),
  }
}
