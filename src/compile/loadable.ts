/** An attached segment in the form that the runtime loads. */
import type { AttachedSegment } from '../segment/attach.js'
import type { Tensor } from '../tensor.js'

/**
 * The segment with a graph that the runtime loads, and the defaults of its optional inputs. Only models with optional
 * inputs are parsed: the schema of ONNX takes a worker 50 ms to load.
 */
export async function loadableSegment(
  attached: AttachedSegment,
): Promise<AttachedSegment & { readonly defaults: readonly Tensor[] }> {
  const { graph, header } = attached
  if (!header.inputs.some(({ optional }) => optional === true)) return { ...attached, defaults: [] }
  const { separateDefaults } = await import('./defaults.js')
  return { ...attached, ...separateDefaults(graph, header.inputs) }
}
