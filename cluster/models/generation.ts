/** One generation of a model version: its source, its segment and its description for workers. */
import { isDeepStrictEqual } from 'node:util'
import { OnecopyError } from '../../src/errors.js'
import type { ModelSource } from '../../src/repository/repository.js'
import type { SegmentMessage } from '../messages.js'
import type { LiveSegment } from './live-segment.js'

export interface Generation {
  /** Model files and config. */
  readonly source: ModelSource
  readonly segment: LiveSegment
  /** The message to workers, without the segment reference, which can change. */
  readonly facts: Omit<SegmentMessage, 'segment'>
}

export function messageOfGeneration({ facts, segment }: Generation): SegmentMessage {
  return { ...facts, segment: segment.reference }
}

export function generationKey({ facts }: Generation): string {
  return facts.key
}

/** Clients of a version depend on its inputs and outputs. */
export function requireSameInterface(old: Generation, next: Generation): void {
  const of = ({ segment: { published } }: Generation) => ({
    inputs: published.segment.header.inputs,
    outputs: published.segment.header.outputs,
  })
  if (isDeepStrictEqual(of(old), of(next))) return
  throw new OnecopyError(
    'INTERFACE_CHANGED',
    `expected the inputs and outputs of version ${old.facts.version}, ${JSON.stringify(of(old))}, got ` +
      `${JSON.stringify(of(next))}: give it a new version, or unload the old one first`,
  )
}
