/**
 * The graph of a segment as the runtime loads it. Few models have optional inputs; the parser is loaded only
 * for those.
 */
import type { Tensor, TensorSpec } from '../tensor.js'

/** The graph without the defaults of its optional inputs, and those defaults. */
export async function withoutDefaults(
  graph: Uint8Array<ArrayBuffer>,
  inputs: readonly TensorSpec[],
): Promise<{ readonly graph: Uint8Array<ArrayBuffer>; readonly defaults: readonly Tensor[] }> {
  if (!inputs.some(({ optional }) => optional === true)) return { graph, defaults: [] }
  const { separateDefaults } = await import('./defaults.js')
  return separateDefaults(graph, inputs)
}
