/**
 * What passes between the process that keeps a model and those that attach to it: one JSON object a line, over a Unix
 * socket in the server's folder, which only its user may enter. They carry a path and a digest, never weights.
 *
 * The connection stays open for as long as a process is attached: its end tells either side about the other's.
 */
import { join } from 'node:path'
import { z } from 'zod'
import { ErrorCodeSchema } from '../error-schemas.js'
import { ServedModelConfigSchema } from '../repository/config.js'
import { SegmentReferenceSchema } from '../segment/attach.js'

/** An owner that says more in one line is none. */
const MAX_LINE_CHARACTERS = 16 * 1024 * 1024

export function attachSocketPath(serverFolder: string): string {
  return join(serverFolder, 'attach.sock')
}

export const ToOwnerSchema = z.discriminatedUnion('type', [
  /** Without a version, the newest that is in service. */
  z.object({ type: z.literal('attach'), name: z.string(), version: z.string().nullable() }),
  /** What was offered is loaded, or given up: the lease on its raw weights ends. */
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

/** Hands on every whole line, parsed; what is no JSON of the schema throws. */
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
