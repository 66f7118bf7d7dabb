/** What `onecopy inspect` finds out: one JSON document, or the tables of inspection-text.ts. */
import type { Inspection } from '../../src/sharing/inspection.js'
import type { PodMemory } from '../../src/sharing/pod-memory.js'
import type { Measurement } from '../../src/sharing/probe.js'
import type { TextInspection } from './text-inspection.js'

export interface InspectDocument extends Inspection {
  readonly model: string
  readonly name: string
  /** What the model's folder was read as, where it comes with a tokenizer. */
  readonly text: TextInspection | null
  readonly compileMs: number
  readonly workers: number
  /** Null where nothing was measured. */
  readonly measurement: Measurement | null
  /** What the model takes in so many workers, the workers themselves not counted; null where nothing was measured. */
  readonly totalBytes: number | null
  /** What a pod of so many workers must be given. */
  readonly pod: Omit<PodMemory, 'model'>
}
