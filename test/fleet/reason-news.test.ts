/** What the journal keeps of decisions that do nothing. */
import t from 'tap'
import { newsAfterMs, ReasonNews } from '../../src/fleet/journal/latest-decisions.ts'

const t0 = 1_800_000_000_000
const idle = (reason: string) => ({ reason, actions: [] })
const launch = { reason: 'target-wait', actions: [{}] }

t.test('flips of two reasons are told once a minute', async t => {
  const news = new ReasonNews()
  const told: string[] = []
  for (let second = 0; second < 120; second += 1) {
    const reason = second % 2 === 0 ? 'no-work' : 'target-wait'
    if (news.observe('default', idle(reason), t0 + second * 1000)) told.push(`${second} ${reason}`)
  }
  t.same(told, ['0 no-work', '1 target-wait', '60 no-work', '61 target-wait'])
})

t.test('a reason that lasts is told once; another one at once', async t => {
  const news = new ReasonNews()
  t.ok(news.observe('default', idle('no-work'), t0))
  t.notOk(news.observe('default', idle('no-work'), t0 + 10 * newsAfterMs))
  t.ok(news.observe('default', idle('paused'), t0 + 10 * newsAfterMs + 1))
  t.ok(news.observe('other', idle('paused'), t0 + 10 * newsAfterMs + 1), 'each queue for itself')
})

t.test('a reason that comes back and lasts is told after its minute', async t => {
  const news = new ReasonNews()
  t.ok(news.observe('default', idle('no-work'), t0))
  t.ok(news.observe('default', launch, t0 + 10_000))
  t.notOk(news.observe('default', idle('no-work'), t0 + 40_000), 'told less than a minute ago')
  t.ok(news.observe('default', idle('no-work'), t0 + newsAfterMs), 'it lasts: the journal ends with what holds')
  t.notOk(news.observe('default', idle('no-work'), t0 + 10 * newsAfterMs))
})

t.test('what does something is always told', async t => {
  const news = new ReasonNews()
  for (let second = 0; second < 3; second += 1) t.ok(news.observe('default', launch, t0 + second * 1000))
})

t.test('who takes over tells anew', async t => {
  const news = new ReasonNews()
  t.ok(news.observe('default', idle('no-work'), t0))
  news.clear()
  t.ok(news.observe('default', idle('no-work'), t0 + 1))
})
