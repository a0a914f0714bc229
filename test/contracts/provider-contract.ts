/** What every provider promises, as tests. */
import { randomUUID } from 'node:crypto'
import type { Test } from 'tap'
import type { Provider } from '../../src/fleet/providers/provider.ts'
import { until } from '../support/until.ts'

export interface ProviderUnderTest {
  readonly provider: Provider
  /** Makes an instance end as if by itself, and returns when it has. */
  crash(instanceId: string): Promise<void>
}

export interface ProviderTraits {
  /** It hears of the end of an instance, and calls back. */
  readonly tellsOfEnds: boolean
}

/** @param open makes a fresh, empty provider whose instances end soon after they are told to */
export function testProviderContract(
  t: Test,
  name: string,
  open: (t: Test) => Promise<ProviderUnderTest>,
  { tellsOfEnds }: ProviderTraits = { tellsOfEnds: true },
): void {
  t.test(`provider contract: ${name}`, async t => {
    const request = (count: number, decisionId: string = randomUUID(), pool = 'default') => ({
      pool,
      count,
      decisionId,
      slots: 2,
    })
    const empty = async (provider: Provider): Promise<void> =>
      await until(async () => (await provider.list()).length === 0)

    t.test('what was launched is listed, as it was asked for', async t => {
      const { provider } = await open(t)
      t.same(await provider.list(), [])
      const before = Date.now()
      const launched = await provider.launch(request(2, 'decision-1'))
      await provider.launch(request(1, 'decision-2', 'other'))
      t.equal(launched.length, 2)
      t.equal(new Set(launched.map(({ id }) => id)).size, 2)
      for (const instance of launched) {
        t.match(instance, { pool: 'default', slots: 2, decisionId: 'decision-1', state: 'running' })
        t.ok(instance.launchedAt >= before - 1 && instance.launchedAt <= Date.now() + 1)
        t.ok(provider.manages(instance.id))
      }
      t.notOk(provider.manages('i-of-somebody-else'))
      const listed = await provider.list()
      t.same(
        listed
          .filter(({ pool }) => pool === 'default')
          .map(({ id }) => id)
          .sort(),
        launched.map(({ id }) => id).sort(),
      )
      t.equal(listed.length, 3)
    })

    t.test('the same decision launches once, also at the same time, also when its instances have ended', async t => {
      const { provider, crash } = await open(t)
      const [one, two] = await Promise.all([provider.launch(request(1, 'same')), provider.launch(request(1, 'same'))])
      t.same(
        two.map(({ id }) => id),
        one.map(({ id }) => id),
      )
      t.equal((await provider.list()).length, 1)
      await crash(one[0]?.id ?? '')
      t.equal((await provider.list()).length, 0)
      t.equal((await provider.launch(request(1, 'same')))[0]?.id, one[0]?.id)
      t.equal((await provider.list()).length, 0)
    })

    t.test('terminated instances go away; the others, unknown ids and repeated calls are left alone', async t => {
      const { provider } = await open(t)
      const [first, second] = await provider.launch(request(2))
      const [kept] = await provider.launch(request(1))
      const ids = [first?.id ?? '', second?.id ?? '', 'nobody']
      await Promise.all([provider.terminate(ids), provider.terminate(ids)])
      for (const { id, state } of await provider.list()) t.equal(state, id === kept?.id ? 'running' : 'terminating')
      await provider.terminate(ids, { force: true })
      await until(async () => (await provider.list()).length <= 1)
      t.equal((await provider.list())[0]?.id, kept?.id)
      await provider.terminate(ids)
      t.equal((await provider.list()).length, 1)
    })

    t.test('an instance that ends by itself is absent at once, and that is told', async t => {
      const { provider, crash } = await open(t)
      const [instance] = await provider.launch(request(1))
      const told = new Promise<void>(resolve => {
        provider.onChange(resolve)
      })
      await crash(instance?.id ?? '')
      t.same(await provider.list(), [])
      if (tellsOfEnds) await told
    })

    t.test('what an instance said may be asked for, also of one that nobody knows; nothing is left behind', async t => {
      const { provider, crash } = await open(t)
      const [instance] = await provider.launch(request(1))
      const said = await provider.explainBoot(instance?.id ?? '')
      t.ok(said === undefined || (said !== '' && Buffer.byteLength(said) <= 4096))
      await crash(instance?.id ?? '')
      t.equal(await provider.explainBoot('nobody'), undefined)
      t.same(await provider.sweepLeftovers(Date.now()), [])
    })

    t.test('close ends what ends with the node, leaves the rest, and may be called twice', async t => {
      const { provider } = await open(t)
      await provider.launch(request(2))
      const { endsWithNode } = provider
      await provider.close({ stopInstances: endsWithNode })
      await provider.close({ stopInstances: endsWithNode })
      if (!endsWithNode) return
      await empty(provider)
      t.same(await provider.list(), [])
    })
  })
}
