/**
 * The second session of a model, with which short runs are computed on the event loop
 * (docs/decisions/027-placement.md).
 */
import type { SegmentHeader } from './layout.js'

/** The most private memory that a second session may take. */
const MOST_BYTES = 16 * 1024 * 1024

type SharingFacts = Pick<SegmentHeader, 'valueDependent' | 'sharing'>

/** Weights that every session has in private memory. */
function privateWeightsBytes({ sharing }: SharingFacts): number {
  return sharing.privatelyPackedBytes + sharing.unshareableBytes
}

/**
 * Whether runs of known cost may run on the event loop. Their cost must depend on their size only,
 * and a second session must not have a large copy of the weights.
 */
export function mayRunOnLoop(header: SharingFacts): boolean {
  return header.valueDependent === null && privateWeightsBytes(header) <= MOST_BYTES
}

/** Private memory of a second session, if the model may have one. */
export function secondSessionBytes(header: SharingFacts): number {
  return mayRunOnLoop(header) ? privateWeightsBytes(header) : 0
}
