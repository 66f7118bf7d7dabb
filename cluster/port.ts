/** The ports on which workers serve. */
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { Config } from '../src/config/config.js'
import { listen } from '../src/http/listen.js'

/** Another process has the chosen port this often in a row: something takes every free port. */
const MAX_REPLACEMENTS = 5

type PortsConfig = Pick<Config, 'host' | 'port' | 'grpcPort' | 'isHttp'>

export interface Ports {
  readonly port: number
  readonly grpcPort: number | null
}

/**
 * The ports to serve on, with a free port in place of 0: if all workers died, their replacements
 * would otherwise get a different one. A free port is not reserved until the first worker listens.
 */
export class ServingPorts {
  readonly #config: PortsConfig
  #current: Ports
  #replacing: Promise<void> | null = null
  #replacements = 0

  private constructor(config: PortsConfig, chosen: Ports) {
    this.#config = config
    this.#current = chosen
  }

  /** @throws OnecopyError ADDRESS_UNAVAILABLE if no port of the host is free. */
  static async choose(config: PortsConfig): Promise<ServingPorts> {
    return new ServingPorts(config, await concretePorts(config))
  }

  get current(): Ports {
    return this.#current
  }

  /**
   * Chooses other ports in place of those that another process has taken since they were chosen.
   * `onReplace` is called before that, once. Returns false if the ports are configured.
   */
  async replace(taken: Ports, onReplace: () => void): Promise<boolean> {
    const { port, grpcPort, isHttp } = this.#config
    if (!isHttp || (port !== 0 && grpcPort !== 0)) return false
    if (taken.port !== this.#current.port || taken.grpcPort !== this.#current.grpcPort) return true
    if (this.#replacing === null) {
      if (++this.#replacements > MAX_REPLACEMENTS) return false
      onReplace()
      this.#replacing = concretePorts(this.#config).then((ports) => {
        this.#current = ports
        this.#replacing = null
      })
    }
    await this.#replacing
    return true
  }
}

async function concretePorts({ host, port, grpcPort, isHttp }: PortsConfig): Promise<Ports> {
  if (!isHttp) return { port, grpcPort: null }
  return {
    port: port === 0 ? await freePort(host) : port,
    grpcPort: grpcPort === 0 ? await freePort(host) : grpcPort,
  }
}

async function freePort(host: string): Promise<number> {
  const probe = createServer()
  const free = await listen(probe, { host, port: 0 }, 'inference')
  probe.close()
  await once(probe, 'close')
  return free
}
