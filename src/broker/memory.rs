//! A broker in this process's memory.

use super::Delivery;

#[derive(Debug)]
pub struct Receipt {}

impl Receipt {
    pub fn ack(&self) -> bool {
        todo!()
    }
    pub fn usable(&self) -> bool {
        todo!()
    }
}

pub struct Consumer {}

impl Consumer {
    pub async fn next(&mut self) -> Option<Delivery> {
        todo!()
    }
    pub fn close(self) {
        todo!()
    }
}

pub struct Walk {}

impl Walk {
    pub fn next(&mut self) -> Option<Delivery> {
        todo!()
    }
    pub fn close(self) {
        todo!()
    }
}
