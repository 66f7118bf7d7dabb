/** What a text model answers, computed in this process on the original file, one text at a time. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { Tokenizer } from 'tokenizers'

export class TextReference {
  readonly #session: InferenceSession
  readonly #tokenizer: Tokenizer

  private constructor(session: InferenceSession, tokenizer: Tokenizer) {
    this.#session = session
    this.#tokenizer = tokenizer
  }

  static async open(folder: string, file = 'onnx/model.onnx'): Promise<TextReference> {
    const session = await InferenceSession.create(join(folder, file), {
      intraOpNumThreads: 1,
      interOpNumThreads: 1,
      logSeverityLevel: 3,
    })
    const tokenizer = Tokenizer.fromString(readFileSync(join(folder, 'tokenizer.json'), 'utf8'))
    return new TextReference(session, tokenizer)
  }

  async tokens(text: string, pair?: string): Promise<number[]> {
    return (await this.#tokenizer.encode(text, pair ?? null)).getIds()
  }

  /** An output for one text or pair, without the batch dimension. */
  async run(text: string, { pair, output }: { pair?: string; output: string }): Promise<Float32Array> {
    const encoding = await this.#tokenizer.encode(text, pair ?? null)
    const shape = [1, encoding.getLength()]
    const tensor = (values: number[]) => new Tensor('int64', BigInt64Array.from(values, BigInt), shape)
    const all: Record<string, Tensor> = {
      input_ids: tensor(encoding.getIds()),
      attention_mask: tensor(encoding.getAttentionMask()),
      token_type_ids: tensor(encoding.getTypeIds()),
    }
    const feeds = Object.fromEntries(this.#session.inputNames.map((name) => [name, all[name] as Tensor]))
    const results = await this.#session.run(feeds, [output])
    return results[output]?.data as Float32Array
  }

  /** Mean of the states of a text's tokens, with a length of 1. */
  async embed(text: string): Promise<Float32Array> {
    const states = await this.run(text, { output: 'last_hidden_state' })
    const tokens = (await this.tokens(text)).length
    const hidden = states.length / tokens
    const mean = new Float32Array(hidden)
    for (let i = 0; i < states.length; i++)
      mean[i % hidden] = (mean[i % hidden] as number) + (states[i] as number) / tokens
    const length = Math.hypot(...mean)
    return mean.map((value) => value / length)
  }

  async close(): Promise<void> {
    await this.#session.release()
  }
}

export function largestGap(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY
  let gap = 0
  for (let i = 0; i < a.length; i++) gap = Math.max(gap, Math.abs((a[i] as number) - (b[i] as number)))
  return gap
}
