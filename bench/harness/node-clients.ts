/**
 * The same closed loop over REST and gRPC, each with the usual Node.js client in this process. Both
 * latencies include the client; the CPU time of the workers does not.
 */
import { Agent } from 'node:http'
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import { Client, credentials, Metadata } from '@grpc/grpc-js'
import { ModelInferRequestSchema, ModelInferResponseSchema } from '../../src/grpc/schema/inference_pb.js'
import { send } from './client.js'
import { untilIdle } from './idle.js'
import { cpuSeconds } from './processes.js'
import type { InferRequest, InputTensor } from './requests.js'
import type { Arm, Sample } from './rounds.js'
import type { RunningServer } from './servers.js'
import { quantile } from './statistics.js'

/** A channel stays with one worker, so several are needed to use all workers. */
const MAX_CHANNELS = 8
const PATH = '/inference.GRPCInferenceService/ModelInfer'

/** Sends the request of an index; resolves with the raw bytes of the output. */
export interface Caller {
  readonly name: string
  call(index: number): Promise<Uint8Array>
  close(): void
}

export interface CpuSample extends Sample {
  /** CPU time of all workers per request. */
  readonly workerCpuMs: number
}

export function restCaller(port: number, requests: readonly InferRequest[]): Caller {
  const agent = new Agent({ keepAlive: true })
  return {
    name: 'REST binary',
    call: async (index) => {
      const request = requests[index % requests.length] as InferRequest
      const { status, headers, body } = await send({ agent, port, request })
      if (status !== 200) throw new Error(`expected status 200, got ${status}: ${body}`)
      return body.subarray(Number(headers['inference-header-content-length']))
    },
    close: () => agent.destroy(),
  }
}

/** The serialized ModelInferRequest. */
function messageOf(modelName: string, inputs: readonly InputTensor[]): Buffer {
  const message = create(ModelInferRequestSchema, {
    modelName,
    inputs: inputs.map(({ name, datatype, shape }) => ({ name, datatype, shape: shape.map(BigInt) })),
    rawInputContents: inputs.map(({ data }) => new Uint8Array(data.buffer)),
  })
  return Buffer.from(toBinary(ModelInferRequestSchema, message))
}

export function grpcCaller(options: {
  readonly port: number
  readonly modelName: string
  readonly inputs: readonly (readonly InputTensor[])[]
  readonly inFlight: number
}): Caller {
  const { port, modelName, inputs, inFlight } = options
  const messages = inputs.map((one) => messageOf(modelName, one))
  const clients = Array.from(
    { length: Math.min(inFlight, MAX_CHANNELS) },
    () =>
      new Client(`127.0.0.1:${port}`, credentials.createInsecure(), {
        ...{ 'grpc.use_local_subchannel_pool': 1, 'grpc.max_receive_message_length': -1 },
      }),
  )
  return {
    name: 'gRPC',
    call: (index) =>
      new Promise((resolve, reject) => {
        const client = clients[index % clients.length] as Client
        client.makeUnaryRequest(
          PATH,
          (bytes: Buffer) => bytes,
          (bytes: Buffer) => fromBinary(ModelInferResponseSchema, bytes),
          messages[index % messages.length] as Buffer,
          new Metadata(),
          (error, answer) =>
            error === null ? resolve(answer?.rawOutputContents[0] ?? new Uint8Array()) : reject(error),
        )
      }),
    close: () => {
      for (const client of clients) client.close()
    },
  }
}

async function closedLoop(
  caller: Caller,
  { server, inFlight, seconds }: { server: RunningServer; inFlight: number; seconds: number },
): Promise<CpuSample> {
  const cpu = () => server.workerPids.reduce((sum, pid) => sum + cpuSeconds(pid), 0)
  const latenciesMs: number[] = []
  let failures = 0
  const cpuBefore = cpu()
  const startedMs = performance.now()
  const endMs = startedMs + seconds * 1000
  const loop = async (first: number) => {
    for (let index = first; performance.now() < endMs; index += inFlight) {
      const beforeMs = performance.now()
      await caller.call(index).then(
        () => latenciesMs.push(performance.now() - beforeMs),
        () => failures++,
      )
    }
  }
  await Promise.all(Array.from({ length: inFlight }, (_, first) => loop(first)))
  const tookMs = performance.now() - startedMs
  return {
    requestsPerSecond: (latenciesMs.length * 1000) / tookMs,
    p50Ms: quantile(latenciesMs, 0.5),
    p99Ms: quantile(latenciesMs, 0.99),
    failures,
    workerCpuMs: ((cpu() - cpuBefore) * 1000) / latenciesMs.length,
  }
}

export function callerArm(caller: Caller, options: { server: RunningServer; inFlight: number }): Arm {
  const { server } = options
  return {
    name: caller.name,
    measure: async (seconds) => {
      const sample = await closedLoop(caller, { ...options, seconds })
      server.child.assertAlive()
      await untilIdle(server.child.pid)
      return sample
    },
  }
}
