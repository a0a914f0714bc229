/** Cordon, claim, completion, return, lost lease and termination in 100,000 random orders: no delivered job is ever killed. */
import fc from 'fast-check'
import t from 'tap'
import { type ModelOptions, runCordonModel } from './cordon-model.ts'

const sound: ModelOptions = { hasSecondLook: true, setsFlagFirst: true }
const orders = fc.uint8Array({ minLength: 30, maxLength: 60 })

t.test('no order of steps kills a job that was delivered', async t => {
  const seen = { runs: 0, delivered: 0, cordoned: 0, terminated: 0, lost: 0 }
  const result = fc.check(
    fc.property(orders, order => {
      const { violation, steps, ...counts } = runCordonModel(order, sound)
      seen.runs += 1
      for (const key of ['delivered', 'cordoned', 'terminated', 'lost'] as const) seen[key] += counts[key] > 0 ? 1 : 0
      if (violation !== undefined) throw new Error(`${violation}\n  ${steps.join('\n  ')}`)
    }),
    { numRuns: 100_000 },
  )
  t.notOk(result.failed, fc.defaultReportMessage(result) ?? '')
  t.comment(JSON.stringify(seen))
  t.equal(seen.runs, 100_000)
  for (const key of ['delivered', 'cordoned', 'terminated', 'lost'] as const)
    t.ok(seen[key] > 1000, `${key} in ${seen[key]} of them: the model does not pass by doing nothing`)
})

t.test('each part of the protocol is needed: without it an order is found that kills one', async t => {
  const weak: [what: string, options: ModelOptions][] = [
    ['the second look', { ...sound, hasSecondLook: false }],
    ['the flag before the reading', { ...sound, setsFlagFirst: false }],
  ]
  for (const [what, options] of weak) {
    const result = fc.check(
      fc.property(orders, order => runCordonModel(order, options).violation === undefined),
      { numRuns: 100_000 },
    )
    t.ok(result.failed, what)
    const [order] = result.counterexample ?? [[]]
    t.comment(`without ${what}:\n  ${runCordonModel(order, options).steps.join('\n  ')}`)
  }
})
