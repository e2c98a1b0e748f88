//! Listings.

use client::{Bucket, ListOptions};
use simhost::SimEnv;

use super::outcome;
use super::running::{Begun, Limit, What};
use super::worker::{Service, Worker};
use crate::history::{Key, Listed, Page, PageRequest};
use crate::process::lock;

/// Pages of one listing that are read at most.
const PAGES_MAX: u32 = 200;
/// Failed pages of one listing that are asked for again.
const RETRIES_MAX: u32 = 2;

impl Worker {
    /// Lists the bucket, or what is under a prefix, page by page.
    pub(super) async fn list(&self, bucket: &Bucket<SimEnv>) -> Service {
        let (prefix, delimiter, page) = self.choice.listing(&self.stream);
        let mut request =
            PageRequest { bucket: super::BUCKET, prefix, delimiter, token: bytes::Bytes::new() };
        let mut listing = bucket.list(ListOptions {
            prefix: request.prefix.clone(),
            delimiter: request.delimiter.clone(),
            page: Some(page),
            token: bytes::Bytes::new(),
        });
        let mut retries = 0;
        for _ in 0..PAGES_MAX {
            let begun = self.begin_page(request.clone());
            match listing.next_page().await {
                Ok(Some(found)) => {
                    let Some(listed) = self.listed(page, found) else { return Service::Reached };
                    request.token = listed.token.clone();
                    begun.end_page(Some(listed));
                    if request.token.is_empty() {
                        return Service::Reached;
                    }
                }
                Ok(None) => {
                    begun.end_page(None);
                    self.broken("a listing ended after a page that was not its last");
                    return Service::Reached;
                }
                Err(error) => {
                    begun.end_page(None);
                    let ended = outcome::of_service(&error);
                    self.cluster.world.probe(ended.probe);
                    retries += 1;
                    if retries > RETRIES_MAX {
                        return if ended.is_unavailable { Service::Unavailable } else { Service::Reached };
                    }
                }
            }
        }
        Service::Reached
    }

    fn begin_page(&self, request: PageRequest) -> Begun {
        let index = lock(&self.cluster.ledger).begin_page(self.client, request, self.cluster.world.now());
        let limit = Limit::call(self.timeout());
        Begun::new(&self.cluster, &self.workload, &self.env, What::Page(index), limit)
    }

    /// A page for the ledger, each of its entries checked; none when something is wrong with it.
    fn listed(&self, entries_max: usize, page: client::Page) -> Option<Page> {
        let entries = page.objects.len() + page.prefixes.len();
        if entries > entries_max {
            self.broken(format!("a page has {entries} entries; {entries_max} were asked for"));
            return None;
        }
        let mut objects = Vec::with_capacity(page.objects.len());
        for info in page.objects {
            self.check(&Key { bucket: super::BUCKET, name: info.key.clone() }, &info)?;
            objects.push(Listed { name: info.key, version: info.version, size: info.size });
        }
        Some(Page { objects, prefixes: page.prefixes, token: page.token })
    }
}
