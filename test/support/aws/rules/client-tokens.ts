/**
 * The same client token and the same request: the same reply, and nothing is done twice.
 * Why: moto only echoes the token, so a repeated call after a lost reply would launch twice.
 */
import { type Params, without } from '../query.ts'
import { Refusal, type Reply } from '../reply.ts'

interface Remembered {
  readonly request: string
  readonly reply: Promise<Reply>
}

export class ClientTokens {
  readonly #remembered = new Map<string, Remembered>()

  clear(): void {
    this.#remembered.clear()
  }

  /**
   * Runs a call, or hands out what an earlier one with this token got. A call that failed is forgotten: its token is free.
   * @param isStale whether the earlier reply is about instances that are gone
   * @throws Refusal when the token was used for another request, or its instances are gone
   */
  async once(
    scope: string,
    params: Params,
    run: () => Promise<Reply>,
    isStale: (reply: Reply) => Promise<boolean> = async () => false,
  ): Promise<Reply> {
    const token = params.ClientToken ?? ''
    if (token === '') return await run()
    const key = `${scope} ${params.Action} ${token}`
    const request = JSON.stringify(Object.entries(without(params, 'ClientToken')).sort(([a], [b]) => (a < b ? -1 : 1)))
    const earlier = this.#remembered.get(key)
    if (earlier !== undefined) {
      if (earlier.request !== request) {
        throw new Refusal('IdempotentParameterMismatch', `Client token ${token} was used with other parameters.`)
      }
      const reply = await earlier.reply
      if (await isStale(reply)) {
        throw new Refusal('IdempotentInstanceTerminated', `The instances of client token ${token} were terminated.`)
      }
      return reply
    }
    // Remembered before it is done: a second call that comes meanwhile waits for the same reply.
    const reply = run()
    this.#remembered.set(key, { request, reply })
    try {
      const { outcome } = await reply
      if (outcome !== 'ok') this.#remembered.delete(key)
    } catch (error) {
      this.#remembered.delete(key)
      throw error
    }
    return await reply
  }
}
