/**
 * Replies behind others on the same connection (HTTP/1.1 pipelining). Node.js tells only the one whose turn it is that
 * its client went away; the others would wait for ever, with the results, jobs and room that they hold. Here each is
 * told.
 */

import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { App } from '../api.ts'

/** To be added before all that waits for the end of a reply. */
export function addQueuedReplies(app: App): void {
  const queued = new WeakMap<Socket, Set<ServerResponse>>()

  app.addHook('onRequest', ({ raw: { socket } }, { raw: response }, done) => {
    // It has its socket at once, unless another reply has it.
    if (response.socket === null) {
      const responses = queuedOf(socket)
      responses.add(response)
      response.once('close', () => responses.delete(response))
    }
    done()
  })

  function queuedOf(socket: Socket): Set<ServerResponse> {
    const known = queued.get(socket)
    if (known !== undefined) return known
    const responses = new Set<ServerResponse>()
    queued.set(socket, responses)
    const end = (): void => {
      for (const response of responses) if (response.socket === null) endQueued(response)
    }
    if (socket.destroyed) process.nextTick(end)
    else socket.once('close', end)
    return responses
  }
}

function endQueued(response: ServerResponse): void {
  if (response.destroyed) return
  response.destroy()
  response.emit('close')
}
