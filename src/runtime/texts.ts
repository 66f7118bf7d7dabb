/**
 * Texts that the model answers with. The binding reads them as UTF-8 and puts U+FFFD in place of other bytes, without a
 * word. Where neither the model nor what it was given holds that character, its presence tells.
 */
import { OnecopyError } from '../errors.js'
import type { Tensor } from '../tensor.js'

const REPLACEMENT = '\uFFFD'
const REPLACEMENT_BYTES = Buffer.from(REPLACEMENT)

/** Whether a model's texts may rightly hold U+FFFD: its file has the bytes of it, in a constant or by chance. */
export function mayHoldReplacement(graph: Uint8Array): boolean {
  return Buffer.from(graph.buffer, graph.byteOffset, graph.byteLength).includes(REPLACEMENT_BYTES)
}

function replacedAt({ datatype, data }: Tensor): number {
  if (datatype !== 'BYTES') return -1
  return (data as readonly string[]).findIndex((text) => text.includes(REPLACEMENT))
}

/** @throws OnecopyError MODEL_RUN_FAILED for an output of bytes that are not UTF-8. */
export function checkTexts(outputs: readonly Tensor[], inputs: readonly Tensor[]): void {
  for (const output of outputs) {
    const at = replacedAt(output)
    if (at < 0 || inputs.some((input) => replacedAt(input) >= 0)) continue
    throw new OnecopyError(
      'MODEL_RUN_FAILED',
      `output ${JSON.stringify(output.name)}, element ${at}: expected UTF-8, the model answered other bytes, which the runtime's binding cannot carry`,
    )
  }
}
