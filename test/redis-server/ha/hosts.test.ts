import t from 'tap'
import { parseHosts } from '../../../src/redis-server/ha/replication-group.ts'

t.test('hosts', async t => {
  const faults = (text: string): string => {
    try {
      parseHosts(text)
      return ''
    } catch (error) {
      return (error as Error).message
    }
  }
  t.equal(faults('a=10.0.0.1,b=10.0.0.2,c=10.0.0.3'), '')
  t.match(faults('a=10.0.0.1,b=10.0.0.2'), /there are 2 hosts; it takes 3/)
  t.match(faults('a=10.0.0.1,b=10.0.0.2,c=10.0.0.3,d=10.0.0.4'), /there are 4/)
  t.match(faults('a=10.0.0.1,b=10.0.0.1,c=10.0.0.3'), /two hosts have the address 10.0.0.1/)
  t.match(faults('a=10.0.0.1,a=10.0.0.2,c=10.0.0.3'), /two hosts have the name a/)
  t.match(faults('A=10.0.0.1,b=host,c=10.0.0.3'), /"A=10.0.0.1" is not NAME=ADDRESS.*address of b \("host"\)/)
})
