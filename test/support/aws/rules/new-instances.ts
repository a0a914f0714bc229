/**
 * An instance is not to be seen for a while after its launch, or once more later, by its id neither
 * (InvalidInstanceID.NotFound).
 * Why: EC2 is eventually consistent, moto knows an instance at once.
 */
import { type Params, values } from '../query.ts'
import { Refusal } from '../reply.ts'

export class NewInstances {
  /** For how long; applies to launches from now on (default 0: not at all). */
  hiddenMs = 0
  /** Which else are hidden; asked each time. */
  hides: (instanceId: string) => boolean = () => false
  readonly #visibleAt = new Map<string, number>()

  clear(): void {
    this.#visibleAt.clear()
    this.hides = () => false
  }

  launched(instanceIds: readonly string[]): void {
    if (this.hiddenMs === 0) return
    for (const id of instanceIds) this.#visibleAt.set(id, performance.now() + this.hiddenMs)
  }

  isHidden(instanceId: string): boolean {
    if (this.hides(instanceId)) return true
    const visibleAt = this.#visibleAt.get(instanceId)
    if (visibleAt === undefined || visibleAt > performance.now()) return visibleAt !== undefined
    this.#visibleAt.delete(instanceId)
    return false
  }

  /** @throws Refusal when a request names an instance that is still hidden */
  refuseHidden(params: Params): void {
    const named = [...values(params, 'InstanceId'), params.InstanceId ?? '', ...values(params, 'ResourceId')]
    const hidden = named.find(id => id !== '' && this.isHidden(id))
    if (hidden !== undefined) {
      throw new Refusal('InvalidInstanceID.NotFound', `The instance ID '${hidden}' does not exist`)
    }
  }
}
