import { join } from 'node:path'
import test from 'ava'
import { GRPCInferenceService, type ModelInferResponse } from '../../src/grpc/schema/inference_pb.js'
import { GrpcClient, GrpcFailure } from '../helpers/grpc-client.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { writeTextModel } from '../helpers/text-models.js'

const { method } = GRPCInferenceService

function textInput(name: string, texts: readonly string[]) {
  return {
    name,
    datatype: 'BYTES',
    shape: [BigInt(texts.length)],
    contents: { bytesContents: texts.map((text) => new TextEncoder().encode(text)) },
  }
}

function floatsIn({ rawOutputContents: [bytes = new Uint8Array()] }: ModelInferResponse): number[] {
  return [...new Float32Array(new Uint8Array(bytes).buffer)]
}

test.serial('infer takes texts as BYTES over gRPC, with the answers and errors of REST', async (t) => {
  const folder = temporaryFolder(t)
  writeTextModel(join(folder, 'minilm'))
  writeTextModel(join(folder, 'judge'), { kind: 'reranker' })
  const args = ['--grpc-port', '0', '--workers', '1']
  const { server, url } = await startServer(t, { models: folder, args })
  const { grpcPort } = await server.logged(({ msg, role }) => msg === 'ready' && role === 'primary')
  const client = new GrpcClient(`127.0.0.1:${grpcPort}`)
  const infer = (modelName: string, inputs: ReturnType<typeof textInput>[], parameters = {}) =>
    client.call(method.modelInfer, { modelName, id: '7', inputs, parameters }) as Promise<ModelInferResponse>
  const rest = async (model: string, inputs: { name: string; data: readonly string[] }[]) => {
    const body = {
      inputs: inputs.map((input) => ({ ...input, datatype: 'BYTES', shape: [input.data.length] })),
    }
    const response = await fetch(`${url}/v2/models/${model}/infer`, {
      method: 'POST',
      body: JSON.stringify(body),
    })
    return ((await response.json()) as { outputs: { data: number[] }[] }).outputs[0]?.data ?? []
  }
  const isClose = (a: readonly number[], b: readonly number[]) =>
    a.length === b.length && a.every((value, i) => Math.abs(value - (b[i] as number)) < 1e-4)

  const texts = ['The white rabbit', 'größe 🐇']
  const vectors = await infer('minilm', [textInput('text', texts)])
  t.like(vectors, { id: '7', modelName: 'minilm' })
  t.like(vectors.outputs[0], { name: 'sentence_embedding', datatype: 'FP32', shape: [2n, 32n] })
  const same = await rest('minilm', [{ name: 'text', data: texts }])
  t.true(
    isClose(floatsIn(vectors), same),
    `${floatsIn(vectors).slice(0, 3)} ${same.slice(0, 3)} ${same.length}`,
  )

  const pairs = [textInput('text', ['who was late', 'who']), textInput('text_pair', ['the rabbit', 'alice'])]
  const scores = await infer('judge', pairs)
  t.like(scores.outputs[0], { name: 'scores', shape: [2n, 1n] })
  const expected = await rest('judge', [
    { name: 'text', data: ['who was late', 'who'] },
    { name: 'text_pair', data: ['the rabbit', 'alice'] },
  ])
  t.true(isClose(floatsIn(scores), expected))

  const long = [textInput('text', ['word '.repeat(100)])]
  const refused = await t.throwsAsync(infer('minilm', long), { instanceOf: GrpcFailure })
  t.is((refused as GrpcFailure).code, 'REQUEST_TOO_LARGE')
  const truncate = { truncate: { parameterChoice: { case: 'boolParam', value: true } } }
  t.like((await infer('minilm', long, truncate)).outputs[0], { shape: [1n, 32n] })
  client.close()
  await stopCleanly(t, server)
})
