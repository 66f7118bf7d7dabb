/** Clients that send requests without a pause, on connections kept as long as the server allows. */
import { Agent, type IncomingHttpHeaders, request } from 'node:http'
import { encodeRequest, type WireTensor } from './v2-client.js'

export interface SteadyClientsOptions {
  readonly url: string
  readonly model: string
  readonly input: WireTensor
  readonly count: number
  readonly onAnswer: (status: number, text: string, headers: IncomingHttpHeaders) => void
  /** A request without a complete response. */
  readonly onFailure: (message: string) => void
}

/** Starts immediately; `stop` resolves when the last request of each client has settled. */
export function keepAsking({ url, model, input, count, onAnswer, onFailure }: SteadyClientsOptions): {
  readonly stop: () => Promise<void>
} {
  const { body, headers } = encodeRequest([input], 'json')
  let isStopped = false
  const ask = (agent: Agent) =>
    new Promise<void>((resolve) => {
      const fail = (thrown: Error) => {
        onFailure(thrown.message)
        resolve()
      }
      const options = { method: 'POST', agent, headers }
      const call = request(`${url}/v2/models/${model}/infer`, options, (response) => {
        let text = ''
        response.setEncoding('utf8').on('data', (part: string) => {
          text += part
        })
        response.on('end', () => {
          onAnswer(response.statusCode ?? 0, text, response.headers)
          resolve()
        })
        response.on('error', fail)
      })
      call.on('error', fail)
      call.end(body)
    })
  const all = Promise.all(
    Array.from({ length: count }, async () => {
      const agent = new Agent({ keepAlive: true, maxSockets: 1 })
      while (!isStopped) await ask(agent)
      agent.destroy()
    }),
  )
  return {
    stop: async () => {
      isStopped = true
      await all
    },
  }
}
