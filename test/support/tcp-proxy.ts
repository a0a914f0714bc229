/** A TCP proxy in front of a server: holds back replies, or cuts all connections. */
import { once } from 'node:events'
import { type AddressInfo, createConnection, createServer, type Socket } from 'node:net'
import type { Test } from 'tap'

export interface TcpProxy {
  readonly port: number
  /** From now on requests pass, replies wait; resolves with the first byte of a request. */
  hold(): Promise<void>
  /** Cuts all connections, and replies pass again on new ones. */
  cut(): void
}

export async function startTcpProxy(t: Pick<Test, 'teardown'>, targetPort: number): Promise<TcpProxy> {
  const pairs = new Set<[Socket, Socket]>()
  let isHolding = false
  let passed = (): void => undefined
  const server = createServer(near => {
    const far = createConnection(targetPort, '127.0.0.1')
    const pair: [Socket, Socket] = [near, far]
    pairs.add(pair)
    const end = (): void => {
      near.destroy()
      far.destroy()
      pairs.delete(pair)
    }
    for (const socket of pair) socket.on('error', end).on('close', end)
    near.on('data', data => {
      far.write(data)
      if (isHolding) passed()
    })
    far.on('data', data => {
      if (!isHolding) near.write(data)
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const cut = (): void => {
    isHolding = false
    for (const [near] of pairs) near.destroy()
  }
  t.teardown(() => {
    cut()
    server.close()
  })
  return {
    port: (server.address() as AddressInfo).port,
    hold() {
      isHolding = true
      return new Promise(resolve => {
        passed = resolve
      })
    },
    cut,
  }
}
