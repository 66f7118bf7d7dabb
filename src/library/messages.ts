/**
 * Messages between the owner of a model and attached processes: one JSON object per line, over a Unix socket
 * in the server's folder, which only its user may enter. They carry a path and a digest, never weights.
 *
 * The connection stays open while a process is attached, so each side notices when the other ends.
 */
import { join } from 'node:path'
import * as z from 'zod'
import { ErrorCodeSchema } from '../error-schemas.js'
import { ServedModelConfigSchema } from '../repository/config.js'
import { SegmentReferenceSchema } from '../segment/attach.js'

/** A longer line does not come from an owner. */
const MAX_LINE_CHARACTERS = 16 * 1024 * 1024

export function attachSocketPath(serverFolder: string): string {
  return join(serverFolder, 'attach.sock')
}

export const ToOwnerSchema = z.discriminatedUnion('type', [
  /** Without a version, the newest that is in service. */
  z.object({ type: z.literal('attach'), name: z.string(), version: z.string().nullable() }),
  /** The load has succeeded or failed: the lease on the raw weights ends. */
  z.object({ type: z.literal('loaded') }),
])
export type ToOwner = z.infer<typeof ToOwnerSchema>

const offer = z.object({
  type: z.literal('offer'),
  /** Names the generation at its owner. */
  generation: z.string(),
  name: z.string(),
  version: z.string(),
  segment: SegmentReferenceSchema,
  config: ServedModelConfigSchema,
  /** Threads inside one inference, as the owner's own workers have them. */
  threads: z.int().positive(),
})
export type Offer = Readonly<z.infer<typeof offer>>

export const FromOwnerSchema = z.discriminatedUnion('type', [
  offer,
  z.object({ type: z.literal('refused'), code: ErrorCodeSchema, message: z.string() }),
  /** Another generation answers now than the one that was offered, or none. */
  z.object({ type: z.literal('changed') }),
])
export type FromOwner = z.infer<typeof FromOwnerSchema>

export function encodeLine(message: ToOwner | FromOwner): string {
  return `${JSON.stringify(message)}\n`
}

/** Passes on every complete line, parsed. Throws on a line that does not match the schema. */
export function lineReader<Message>(
  schema: z.ZodType<Message>,
  take: (message: Message) => void,
): (text: string) => void {
  let rest = ''
  return (text) => {
    const lines = (rest + text).split('\n')
    rest = lines.pop() ?? ''
    if (rest.length > MAX_LINE_CHARACTERS)
      throw new Error(`expected lines of at most ${MAX_LINE_CHARACTERS} characters`)
    for (const line of lines) take(schema.parse(JSON.parse(line)))
  }
}
