import t from 'tap'
import { retryDelayMs } from '../../src/jobs/run/completions.ts'

t.test('the delay between attempts doubles, and has an end', async t => {
  t.strictSame(
    [1, 2, 3, 4].map(attempt => retryDelayMs(attempt, 1000)),
    [1000, 2000, 4000, 8000],
  )
  t.equal(retryDelayMs(999, 1000), 3_600_000)
  t.equal(retryDelayMs(5, 0), 0)
  t.equal(retryDelayMs(5, 7_200_000), 7_200_000, 'who asks for more than that gets it')
})
