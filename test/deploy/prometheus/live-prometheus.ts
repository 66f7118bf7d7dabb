/** A real Prometheus that scrapes one server at short intervals. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { stringify } from 'yaml'
import * as z from 'zod'
import { freePort } from '../../../bench/harness/free-port.js'
import { temporaryFolder } from '../../helpers/server.js'
import { PROJECT_ROOT } from '../../helpers/shared.js'
import { toolPath } from '../../helpers/tools.js'
import { until } from '../../helpers/waiting.js'

const ResultSchema = z.object({
  status: z.literal('success'),
  data: z.object({
    resultType: z.enum(['vector', 'scalar', 'matrix']),
    result: z.array(
      z.looseObject({ metric: z.record(z.string(), z.string()), value: z.tuple([z.number(), z.string()]) }),
    ),
  }),
})
export type Sample = { readonly labels: Readonly<Record<string, string>>; readonly value: number }

export class LivePrometheus {
  readonly #url: string

  private constructor(url: string) {
    this.#url = url
  }

  /** The labels that the service discovery of a cluster would add. */
  static async start(
    t: ExecutionContext,
    { target, labels }: { readonly target: string; readonly labels: Readonly<Record<string, string>> },
  ): Promise<LivePrometheus> {
    const folder = temporaryFolder(t)
    const port = await freePort()
    const config = {
      global: { scrape_interval: '500ms', scrape_timeout: '500ms', evaluation_interval: '500ms' },
      rule_files: [join(PROJECT_ROOT, 'deploy', 'prometheus', 'rules.yaml')],
      scrape_configs: [{ job_name: 'onecopy', static_configs: [{ targets: [target], labels }] }],
    }
    writeFileSync(join(folder, 'prometheus.yaml'), stringify(config))
    const child = spawn(
      toolPath('prometheus') as string,
      [
        `--config.file=${join(folder, 'prometheus.yaml')}`,
        `--storage.tsdb.path=${join(folder, 'data')}`,
        `--web.listen-address=127.0.0.1:${port}`,
        '--log.level=error',
      ],
      { stdio: 'ignore' },
    )
    const exited = once(child, 'exit')
    t.teardown(async () => {
      child.kill('SIGKILL')
      await exited
    })
    const url = `http://127.0.0.1:${port}`
    await until('Prometheus to be ready', async () =>
      fetch(`${url}/-/ready`).then(
        ({ ok }) => ok,
        () => false,
      ),
    )
    return new LivePrometheus(url)
  }

  /** @throws Error if Prometheus rejects the expression. */
  async query(expression: string): Promise<Sample[]> {
    const response = await fetch(`${this.#url}/api/v1/query?${new URLSearchParams({ query: expression })}`)
    const answer = await response.json()
    if (!response.ok) throw new Error(`${expression}: ${JSON.stringify(answer)}`)
    const { result } = ResultSchema.parse(answer).data
    return result.map(({ metric, value: [, text] }) => ({ labels: metric, value: Number(text) }))
  }

  /** The value; null unless there is exactly one. */
  async value(expression: string): Promise<number | null> {
    const samples = await this.query(expression)
    return samples.length === 1 ? (samples[0]?.value ?? null) : null
  }
}
