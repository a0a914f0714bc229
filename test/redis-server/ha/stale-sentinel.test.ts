import t from 'tap'
import { isStale } from '../../../src/redis-server/ha/stale-sentinel.ts'

t.test('only a Sentinel that reaches no majority forgets who reported to be primary', async t => {
  const belief = { reaches: 1, claimants: ['10.0.0.1'], isLeading: false }
  t.equal(isStale(belief, 3), true)
  t.equal(isStale({ ...belief, reaches: 2 }, 3), false, 'it hears of a vote')
  t.equal(isStale({ ...belief, reaches: 2 }, 5), true)
  t.equal(isStale({ ...belief, claimants: [] }, 3), false, 'it waits by itself')
  t.equal(isStale({ ...belief, isLeading: true }, 3), false, 'it is busy with a failover')
})
