/** The result of `onecopy inspect`: one JSON document, or the tables of inspection-text.ts. */
import type { Inspection } from '../../src/sharing/inspection.js'
import type { PodMemory } from '../../src/sharing/pod-memory.js'
import type { Measurement } from '../../src/sharing/probe.js'
import type { TextInspection } from './text-inspection.js'

export interface InspectDocument extends Inspection {
  readonly model: string
  readonly name: string
  /** How the model's folder was interpreted; null without a tokenizer. */
  readonly text: TextInspection | null
  readonly compileMs: number
  readonly workers: number
  /** Null with --no-measure. */
  readonly measurement: Measurement | null
  /** Memory of the model in all workers, without the workers themselves; null with --no-measure. */
  readonly totalBytes: number | null
  /** Memory sizes of a pod with this many workers. */
  readonly pod: Omit<PodMemory, 'model'>
}
