/** Hosts as addresses of the loopback interface: no links, so nothing to cut. A random net a run. */
import { randomInt } from 'node:crypto'
import { type HostName, hostNames, type Network } from './network.ts'

export class LoopbackNetwork implements Network {
  readonly kind = 'loopback'
  readonly withoutLinksBecause: string
  readonly #net = `127.${randomInt(2, 255)}.${randomInt(0, 255)}`

  constructor(withoutLinksBecause: string) {
    this.withoutLinksBecause = withoutLinksBecause
  }

  addressOf(host: HostName): string {
    return `${this.#net}.${hostNames.indexOf(host) + 1}`
  }

  commandOn(_host: HostName, command: readonly string[]): string[] {
    return [...command]
  }

  async cut(): Promise<void> {
    throw new Error('there is no link to cut on loopback')
  }

  async mend(): Promise<void> {}

  async rebuild(): Promise<void> {}

  async isolate(): Promise<void> {
    throw new Error('there is no link to cut on loopback')
  }

  async rejoin(): Promise<void> {}

  async remove(): Promise<void> {}
}
